"""A run on disk: what it was, what it trained, what it measured.

runs/<id>/
  config.json  split.json  environment.json  backbone.json
  <branch>/      metrics.jsonl (a line an epoch), best.safetensors, state.pt (to resume from)
  fusion.npz     the fusion matrix, as it is served
  predictions.npz  part by part: file names, targets, probabilities of each branch and of the fusion
  result.json    metrics of each part
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from ser_batch.bundle.fusion import Fusion, load_fusion
from ser_batch.clips import ClipRule
from ser_batch.errors import TrainingError
from ser_batch.machine import git_commit, processor
from training.config import RunConfig, to_dict
from training.configfile import load_config
from training.data.corpus import Corpus
from training.data.splits import PARTS, Split
from training.files import read_json, write_json
from training.loop import load_weights, seed_everything
from training.models.context import ContextBranch
from training.models.pretrained import Encoder, from_description
from training.models.spectrogram import SpectrogramBranch

SPECTROGRAM = "spectrogram"
"""Name of the spectrogram branch in folders, bundles and columns."""
VERSIONED = ("torch", "transformers", "numpy", "soundfile", "soxr", "safetensors", "scikit-learn")


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


def build_branches(config: RunConfig, classes: int, backbone: Encoder | None = None) -> dict[str, nn.Module]:
    """The two branches of a configuration, in the order of the fusion's inputs, each with its own seed.

    `backbone` stands in for the one the configuration names, whose weights need not be at hand then.
    """
    seed_everything(config.seed, 0)
    context = ContextBranch(config.context, classes, backbone)
    seed_everything(config.seed, 1)
    spectrogram = SpectrogramBranch(config.spectrogram, classes, config.clip.samples)
    return {config.context.name: context, SPECTROGRAM: spectrogram}


def start(folder: Path, config: RunConfig, corpus: Corpus, split: Split) -> None:
    """Make the run's folder; TrainingError if it holds a run of another configuration or another split."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: [corpus.examples[i].file for i in getattr(split, part)] for part in PARTS}
    described = {"name": split.name, "corpus": corpus.name, "labels": list(corpus.labels), **files}
    # Compared as a configuration, not as text: a run begun before a field existed has that field's default.
    _keep(folder / "config.json", to_dict(config), lambda path: load_config(path) == config)
    _keep(folder / "split.json", described, lambda path: read_json(path) == described)
    if not (folder / "environment.json").is_file():  # of what trains it, not of what reads it later
        write_json(folder / "environment.json", environment())


def keep_backbone(folder: Path, encoder: Encoder) -> None:
    """Write what the backbone is into the run's folder, so that the run loads where its checkpoint is not at hand."""
    path = folder / "backbone.json"
    if not path.is_file():  # another version of transformers would describe the same backbone in other words
        write_json(path, encoder.describe())


def _keep(path: Path, content: dict[str, Any], same: Callable[[Path], bool]) -> None:
    if not path.is_file():
        write_json(path, content)
    elif not same(path):
        raise TrainingError(
            f"{path.parent} holds a run whose {path.name} is another one",
            remedy="Choose another folder, or delete this one to train anew.",
        )


def environment() -> dict[str, Any]:
    """Versions, machine and git commit."""
    versions = {}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": versions,
        "git": git_commit(),
    }


def load_run(folder: Path) -> Run:
    """A finished run; TrainingError if it is not there or not finished."""
    folder = Path(folder)
    for name in ("config.json", "split.json", "fusion.npz", "result.json"):
        if not (folder / name).is_file():
            raise TrainingError(
                f"{folder} is not a finished run",
                got=f"no {name}",
                remedy="Run ser-train run on it to finish it.",
            )
    config, split = load_config(folder / "config.json"), read_json(folder / "split.json")
    branches = build_branches(config, len(split["labels"]), _kept_backbone(folder, config))
    for name, branch in branches.items():
        load_weights(branch, folder / name / "best.safetensors")
        branch.eval()
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


def _kept_backbone(folder: Path, config: RunConfig) -> Encoder | None:
    """The run's backbone without its checkpoint; None for a run that does not describe it."""
    path = folder / "backbone.json"
    return from_description(read_json(path), config.context.spec_augment) if path.is_file() else None


def _provenance(folder: Path, config: RunConfig, split: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": config.recipe,
        "seed": config.seed,
        "data": split["corpus"],
        "protocol": config.protocol,
        "split": {"name": split["name"], **{part: len(split[part]) for part in PARTS}},
        "config": to_dict(config),
        "environment": read_json(folder / "environment.json"),
    }
