"""The staged training: context branch, spectrogram branch, fusion; then the test.

Source: paper, section IV-B and Table II. Each stage is one function that takes the material and leaves its result
in the run's folder; `train` runs them in order and goes on where a killed run stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.audio import read_clip, read_recording
from ser_batch.clip import Waveform
from ser_batch.evaluation import evaluate
from ser_batch.fusion import Fusion, save_fusion
from training import runs
from training.augment import noisy_copies
from training.config import RunConfig, Stage
from training.data import Corpus
from training.examples import CachedSet, FreshSet, TrainingSet, encode
from training.fusion import fit_logistic
from training.loop import Progress, fit, logits_of
from training.splits import PARTS, Split, splits_of

READERS = 4
"""Threads that decode; libsndfile and soxr release the GIL."""


@dataclass(frozen=True)
class Material:
    """What every stage of one run works with."""

    config: RunConfig
    corpus: Corpus
    split: Split
    folder: Path
    device: torch.device
    compiled: bool = False
    progress: Progress | None = None

    def targets(self, part: str) -> Tensor:
        """Class indices (n,) of a part's clips."""
        return torch.from_numpy(self.corpus.targets[list(getattr(self.split, part))])

    def clips(self, part: str) -> list[Waveform]:
        """A part's clips (144000,) each, exactly as they are served."""
        return list(self._read(part, lambda path: read_clip(path, self.config.clip).waveform))

    def recordings(self, part: str) -> list[Waveform]:
        """A part's whole recordings, mono at the clip rule's rate."""
        return list(self._read(part, lambda path: read_recording(path, self.config.clip.sample_rate).samples))

    def _read(self, part: str, read: Any) -> Iterable[Waveform]:
        paths = [self.corpus.path(i) for i in getattr(self.split, part)]
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(read, paths))

    def copies(self) -> Iterator[Waveform]:
        """The fixed training versions of every training clip, a clip's versions one after the other."""
        for index, clip in zip(self.split.train, self.clips("train"), strict=True):
            yield from noisy_copies(clip, self.config.augment, (self.config.seed, index))


def train(
    config: RunConfig,
    corpus: Corpus,
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    progress: Progress | None = None,
    only: Literal["context", "spectrogram"] | None = None,
) -> dict[str, Any] | None:
    """Train, fuse and test one run in `folder`; returns its result.json.

    With `only`, train that branch and stop: the two do not depend on each other, so two processes can train them
    side by side and a call without `only` then finds both trained.

    Raises TrainingError before any training when data, split, configuration and folder do not fit together.
    """
    corpus.check_files()
    split = splits_of(config.protocol, corpus, config.seed)[config.fold]
    runs.start(folder, config, corpus, split)
    material = Material(config, corpus, split, folder, torch.device(device), compiled, progress)
    branches = runs.build_branches(config, len(corpus.labels))
    if only != "spectrogram":
        train_context(material, branches)
    if only != "context":
        train_spectrogram(material, branches)
    if only:
        return None
    probabilities = {part: branch_probabilities(material, branches, part) for part in PARTS}
    fusion = fit_fusion(material, probabilities)
    return report(material, probabilities, fusion)


def train_context(material: Material, branches: dict[str, nn.Module]) -> None:
    """Stage 1: the context branch (AdamW, cosine, best validation accuracy)."""
    name = material.config.context.name
    _train_branch(material, name, branches[name], material.config.context_stage)


def train_spectrogram(material: Material, branches: dict[str, nn.Module]) -> None:
    """Stage 2: the spectrogram branch (SGD, steps, lowest validation loss), standardised by training clips."""
    branch = branches[runs.SPECTROGRAM].to(material.device, memory_format=torch.channels_last)
    branch.standardise.fit(encode(branch, material.clips("train"), material.device, torch.float32))
    _train_branch(material, runs.SPECTROGRAM, branch, material.config.spectrogram_stage)


def _train_branch(material: Material, name: str, branch: nn.Module, stage: Stage) -> None:
    branch.to(material.device)
    validation = encode(branch, material.clips("validation"), material.device, torch.float32)
    fit(
        name,
        branch,
        stage,
        training_set(material, branch),
        (validation, material.targets("validation")),
        material.folder / name,
        seed=material.config.seed,
        device=material.device,
        compiled=material.compiled,
        progress=material.progress,
    )


def training_set(material: Material, branch: nn.Module) -> TrainingSet:
    """The training clips as the recipe augments them: fixed copies, encoded once, or fresh versions an epoch."""
    config, targets = material.config, material.targets("train")
    if config.augment.fresh:
        recordings = material.recordings("train")
        return FreshSet(recordings, targets, branch, config.clip, config.augment, config.seed, material.device)
    copies = len(config.augment.snrs) + config.augment.keep_original
    features = encode(branch, material.copies(), material.device, torch.float32)
    return CachedSet(features, targets.repeat_interleave(copies), config.seed)


def branch_probabilities(material: Material, branches: dict[str, nn.Module], part: str) -> dict[str, np.ndarray]:
    """What each branch says of a part's clean clips, (n, C) float32 each, in full precision."""
    clips, found = material.clips(part), {}
    for name, branch in branches.items():
        features = encode(branch, clips, material.device, torch.float32)
        found[name] = logits_of(branch, features, material.device).softmax(dim=1).numpy()
    return found


def fit_fusion(material: Material, probabilities: dict[str, dict[str, np.ndarray]]) -> Fusion:
    """Stage 3: the logistic regression over the branches' probabilities (Adam, best validation macro-F1)."""
    config = material.config
    part = {"training": "train", "validation": "validation"}[config.fusion.fit_on]
    fusion = fit_logistic(
        config.fusion,
        config.fusion_stage,
        (probabilities[part], material.targets(part).numpy()),
        (probabilities["validation"], material.targets("validation").numpy()),
        material.folder / "fusion",
        config.seed,
    )
    save_fusion(fusion, material.folder / "fusion.npz")
    return fusion


def report(material: Material, probabilities: dict[str, dict[str, np.ndarray]], fusion: Fusion) -> dict[str, Any]:
    """Measure every part, write predictions.npz and result.json, return the latter."""
    arrays, metrics = {}, {}
    for part, found in probabilities.items():
        truth = material.targets(part).numpy()
        scored = {**found, "fused": fusion(found)}
        metrics[part] = {name: evaluate(truth, p, material.corpus.labels).to_dict() for name, p in scored.items()}
        arrays |= {f"{part}/{name}": p for name, p in scored.items()} | {f"{part}/targets": truth}
        arrays[f"{part}/files"] = np.array([material.corpus.examples[i].file for i in getattr(material.split, part)])
    np.savez_compressed(material.folder / "predictions.npz", **arrays)
    (material.folder / "result.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics
