"""A run on disk: what it was, what it trained, what it measured.

runs/<id>/
  config.json  split.json  environment.json
  backbone.json, backbone.safetensors   what the speech encoder is, and those of its parameters that do not train;
                 where those are not ours to give away, backbone.sha256 of them instead (`keep_heads`)
  <branch>/      metrics.jsonl (one line per epoch), best.safetensors, state.pt (to resume from): only what trains
  fusion.npz     the fusion matrix, as it is served
  predictions.npz  part by part: file names, targets, probabilities of each branch and of the fusion
  bandwidth.json up to which frequency there is sound in what it was trained on
  result.json    metrics of each part
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.bundle.fusion import Fusion, load_fusion
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import TrainingError
from ser_batch.files import write_json
from ser_batch.machine import git_commit, package_version, processor
from training.config import RunConfig, load_config, to_dict
from training.data.augment import noisy_copies
from training.data.corpora import balanced_weights
from training.data.corpus import Corpus
from training.data.features import FeatureCache, read_all
from training.data.splits import PARTS, Split, splits_of
from training.files import read_json, read_tensors, write_tensors
from training.loop import BEST, frozen_sha256, frozen_state, load_weights, seed_everything
from training.models.context import ContextBranch
from training.models.pretrained import Encoder, from_description
from training.models.spectrogram import SpectrogramBranch
from training.runtime import Runtime

SPECTROGRAM = "spectrogram"
"""Name of the spectrogram branch in folders, bundles and columns."""
BANDWIDTH = "bandwidth.json"
TRUST = "trust.json"
"""What `ser-train loco` found out of unseen corpora, for the bundle's manifest; where it was run."""
BACKBONE, CHECKSUM = "backbone.safetensors", "backbone.sha256"
NEITHER_NOISE_NOR_CHANNEL: dict[str, Any] = {
    "snrs": (),
    "keep_original": True,
    "random_snr": False,
    "noises": ("white",),
    "channels": ("clean",),
}
"""Changes to an AugmentConfig."""
VERSIONED = ("torch", "transformers", "numpy", "soundfile", "soxr", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class TrainingRun:
    """A run that is being trained: what every stage of it works with."""

    config: RunConfig
    corpus: Corpus
    split: Split
    folder: Path
    runtime: Runtime

    @property
    def cache(self) -> Path | None:
        """Folder of cached features: the one given, or the run's own if the augmentation draws its versions once."""
        return self.runtime.cache or (self.folder / "features" if self.config.augment.versions else None)

    def features(self, *parts: str, waveforms: bool = False) -> FeatureCache:
        """Versions of the parts' features, where they are cached; of waveforms, without noise and channels."""
        assert self.cache
        augment = self.config.augment
        if waveforms:
            augment = dataclasses.replace(augment, **NEITHER_NOISE_NOR_CHANNEL)
        return FeatureCache(self.cache, self.corpus, self.config.clip, augment, self.runtime.device, self.rows(*parts))

    def weights(self, *parts: str) -> np.ndarray | None:
        """How often each of the parts' clips is drawn, (n,) of sum 1; None: once an epoch."""
        powers = (self.config.corpus_power, self.config.label_power)
        return None if powers == (1.0, 1.0) else balanced_weights(self.corpus, self.rows(*parts), *powers)

    @property
    def fitted_parts(self) -> tuple[str, ...]:
        """The parts whose clips the branches end up trained on."""
        return fitted_parts(self.config)

    def rows(self, *parts: str) -> list[int]:
        """Indices into the corpus of the parts' clips, one part after the other."""
        return [i for part in parts for i in getattr(self.split, part)]

    def targets(self, *parts: str) -> Tensor:
        """Class indices (n,) of the parts' clips."""
        return torch.from_numpy(self.corpus.targets[self.rows(*parts)])

    def clips(self, *parts: str) -> list[Waveform]:
        """The parts' clips (144000,) each, exactly as they are served."""
        return list(read_all(lambda index: self.corpus.clip(index, self.config.clip), self.rows(*parts)))

    def recordings(self, *parts: str) -> list[Waveform]:
        """The parts' whole recordings, mono at the clip rule's rate."""
        rate = self.config.clip.sample_rate
        return list(read_all(lambda index: self.corpus.recording(index, rate), self.rows(*parts)))

    def copies(self, *parts: str) -> Iterator[Waveform]:
        """The fixed training versions of the parts' clips, a clip's versions one after the other."""
        for index, clip in zip(self.rows(*parts), self.clips(*parts), strict=True):
            yield from noisy_copies(clip, self.config.augment, (self.config.seed, index))

    def within(self, folder: Path, split: Split, what: str) -> TrainingRun:
        """A run of another split below this one, in `folder`, that shares its features; its epochs are of `what`."""
        _describe(folder, self.config, self.corpus, split)
        runtime = dataclasses.replace(self.runtime, cache=self.cache, within=what)
        return dataclasses.replace(self, split=split, folder=folder, runtime=runtime)


def fitted_parts(config: RunConfig) -> tuple[str, ...]:
    """The parts of a split whose clips a run's branches end up trained on."""
    return ("train", "validation") if config.refit else ("train",)


def begin(config: RunConfig, corpus: Corpus, folder: Path, runtime: Runtime | None = None) -> TrainingRun:
    """Begin the run's folder, or go on with it; TrainingError if data, split, configuration and folder do not fit."""
    corpus.check_files()
    splits = splits_of(config.protocol, corpus, config.seed)
    if not 0 <= config.fold < len(splits):
        raise TrainingError(
            f"protocol {config.protocol} has no such fold", got=config.fold, expected=f"0 … {len(splits) - 1}"
        )
    split = splits[config.fold]
    _describe(folder, config, corpus, split)
    return TrainingRun(config, corpus, split, folder, runtime or Runtime())


def _describe(folder: Path, config: RunConfig, corpus: Corpus, split: Split) -> None:
    """Write what the run is; TrainingError if the folder holds a run of another configuration or another split."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: [corpus.examples[i].file for i in getattr(split, part)] for part in PARTS}
    described = {"name": split.name, "corpus": corpus.name, "labels": list(corpus.labels), **files}
    if corpus.sets:
        meanings = {name: {k: list(v) for k, v in labels.items()} for name, labels in corpus.sets.items()}
        described["corpora"] = {n: {"licence": corpus.licences[n], "labels": meanings[n]} for n in meanings}
    # Compared as a configuration, not as text: a run begun before a field existed has that field's default.
    write_or_compare(folder / "config.json", to_dict(config), lambda path: load_config(path) == config)
    write_or_compare(folder / "split.json", described, lambda path: read_json(path) == described)
    if not (folder / "environment.json").is_file():  # of what trains it, not of what reads it later
        write_json(folder / "environment.json", environment())


def write_or_compare(path: Path, content: Any, same: Callable[[Path], bool]) -> None:
    """Write what a folder is about, or check that it says the `same`; TrainingError if it says something else."""
    if not path.is_file():
        write_json(path, content)
    elif not same(path):
        raise TrainingError(
            f"{path.parent} holds a run with another {path.name}",
            remedy="Choose another folder, or delete this one to train anew.",
        )


def environment() -> dict[str, Any]:
    """Versions, machine and git commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": {package: package_version(package) for package in VERSIONED},
        "git": git_commit(),
    }


def build_branches(config: RunConfig, classes: int, backbone: Encoder | None = None) -> dict[str, nn.Module]:
    """The two branches of a configuration, in the order of the fusion's inputs, each with its own seed.

    `backbone` stands in for the one the configuration names, whose weights need not be at hand then.
    """
    seed_everything(config.seed, 0)
    context = ContextBranch(config.context, classes, backbone)
    seed_everything(config.seed, 1)
    spectrogram = SpectrogramBranch(config.spectrogram, classes, config.clip.samples)
    return {config.context.name: context, SPECTROGRAM: spectrogram}


def share_backbone(folder: Path, branch: ContextBranch) -> None:
    """Keep the encoder's frozen parameters in the run's folder, or give the branch those that were kept there.

    They are kept once, so that checkpoints need not hold them, a run goes on with the encoder that it began with,
    and loads where the pretrained checkpoint is not at hand.
    """
    frozen, path = frozen_state(branch), folder / BACKBONE
    if not (folder / "backbone.json").is_file():  # transformers of another version would use other words
        write_json(folder / "backbone.json", branch.source.describe())
    if not path.is_file():
        if frozen:
            write_tensors(path, frozen)
        return
    kept = read_tensors(path)
    if {name: tensor.shape for name, tensor in kept.items()} != {n: t.shape for n, t in frozen.items()}:
        raise TrainingError(f"{path} is of another encoder", remedy="Choose another folder, or delete this one.")
    branch.load_state_dict(kept, strict=False)


@dataclass(frozen=True)
class Run:
    """A finished run, its branches in evaluation mode and in the order of the fusion's inputs."""

    folder: Path
    config: RunConfig
    labels: tuple[str, ...]
    branches: dict[str, nn.Module]
    fusion: Fusion
    clip: ClipRule
    provenance: dict[str, Any]
    metrics: dict[str, Any]

    def on(self, backbone: str) -> Run:
        """The same run under another name of its encoder: the public one, of one that was read from a folder."""
        config = dataclasses.replace(self.config, context=dataclasses.replace(self.config.context, backbone=backbone))
        return dataclasses.replace(self, config=config, provenance={**self.provenance, "config": to_dict(config)})


def check_finished(folder: Path, *files: str) -> None:
    """TrainingError if the folder is not of a finished run, which has these files."""
    for name in files:
        if not (folder / name).is_file():
            raise TrainingError(
                f"{folder} is not a finished run",
                got=f"no {name}",
                remedy="Give the command that began it again to finish it.",
            )


def load_run(folder: Path, backbone: str | None = None) -> Run:
    """A finished run; TrainingError if it is not there or not finished, or its encoder cannot be had.

    `backbone` names the folder or the hub's name of the encoder of a run that does not hold it itself; None takes
    the one that the run's configuration names.
    """
    folder = Path(folder)
    check_finished(folder, "config.json", "split.json", "fusion.npz", "result.json")
    config, split = load_config(folder / "config.json"), read_json(folder / "split.json")
    branches = _load_branches(folder, config, len(split["labels"]), backbone or config.context.backbone)
    return Run(
        folder=folder,
        config=config,
        labels=tuple(split["labels"]),
        branches=branches,
        fusion=load_fusion(folder / "fusion.npz"),
        clip=config.clip,
        provenance=_provenance(folder, config, split),
        metrics=read_json(folder / "result.json"),
    )


def keep_heads(run: Run, out: Path) -> None:
    """Copy what a finished run has trained, and the checksum of its frozen encoder instead of the encoder.

    So that a run on somebody else's weights can be published. Raises TrainingError for a run whose folder does not
    hold all of it.
    """
    copied = ("split.json", "environment.json", "backbone.json", "fusion.npz", "result.json", BANDWIDTH)
    check_finished(run.folder, *copied, BACKBONE)
    out.mkdir(parents=True)
    write_json(out / "config.json", to_dict(run.config))
    known = [TRUST] if (run.folder / TRUST).is_file() else []
    for name in (*copied, *known, *(f"{name}/{BEST}" for name in run.branches)):
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(run.folder / name, out / name)
    (out / CHECKSUM).write_text(frozen_sha256(run.branches[run.config.context.name]) + "\n")


def _load_branches(folder: Path, config: RunConfig, classes: int, backbone: str) -> dict[str, nn.Module]:
    """The branches as they were trained; runs of version 0.1.0 have the frozen parameters in their checkpoints."""
    described, name = folder / "backbone.json", config.context.name
    encoder = from_description(read_json(described), config.context.spec_augment) if described.is_file() else None
    branches, frozen = build_branches(config, classes, encoder), {}
    if (folder / BACKBONE).is_file():
        frozen = {name: read_tensors(folder / BACKBONE)}
    elif (folder / CHECKSUM).is_file():
        frozen = {name: _fetched(folder, config, classes, backbone)}
    for branch_name, branch in branches.items():
        load_weights(branch, folder / branch_name / BEST, frozen.get(branch_name, {}))
        branch.eval()
    return branches


def _fetched(folder: Path, config: RunConfig, classes: int, backbone: str) -> dict[str, Tensor]:
    """The frozen parameters of the encoder `backbone`; TrainingError unless the run was trained on them.

    Those of a copy in half precision, too: the hub may hold in full precision what was trained on rounded.
    """
    public = config.context.backbone
    remedy = (
        f"Name a folder (--backbone) that holds {public}, unchanged: config.json and model.safetensors of "
        f"https://huggingface.co/{public}."
    )
    try:
        branch = ContextBranch(dataclasses.replace(config.context, backbone=backbone), classes)
    except TrainingError as error:
        raise TrainingError(error.what, got=error.got, expected=error.expected, remedy=remedy) from error
    found, wanted = frozen_sha256(branch), (folder / CHECKSUM).read_text().strip()
    if found != wanted:
        with torch.no_grad():
            for parameter in frozen_state(branch).values():
                parameter.copy_(parameter.half())
    if wanted not in (found, frozen_sha256(branch)):
        raise TrainingError(
            f"{backbone} is not the encoder that {folder.name} was trained on",
            got=f"parameters of SHA-256 {found[:16]}…",
            expected=f"{wanted[:16]}…",
            remedy=remedy,
        )
    return frozen_state(branch)


def _provenance(folder: Path, config: RunConfig, split: dict[str, Any]) -> dict[str, Any]:
    backbone = read_json(folder / "backbone.json") if (folder / "backbone.json").is_file() else {}
    measured = folder / BANDWIDTH  # which earlier versions did not
    heard = [file for part in fitted_parts(config) for file in split[part]]
    corpora = {
        name: found
        for name, found in split.get("corpora", {}).items()
        if any(file.startswith(f"{name}/") for file in heard)
    }
    return {
        "recipe": config.recipe,
        "seed": config.seed,
        "data": split["corpus"],
        "protocol": config.protocol,
        "split": {"name": split["name"], **{part: len(split[part]) for part in PARTS}},
        # Of several corpora those that it was trained on: the terms of the others do not reach the weights.
        **({"corpora": corpora} if corpora else {}),
        **({"distillation": backbone["origin"]} if "origin" in backbone else {}),
        "config": to_dict(config),
        "environment": read_json(folder / "environment.json"),
        **({"bandwidth_hz": read_json(measured)["hertz"]} if measured.is_file() else {}),
    }
