"""The staged training: context branch, spectrogram branch, fusion; then the test.

Source: paper, section IV-B and Table II. Each stage is one function that takes the material and leaves its result
in the run's folder; `train` runs them in order and goes on where a killed run stopped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.bundle.fusion import Fusion, save_fusion
from ser_batch.evaluation.metrics import evaluate
from training import runs
from training.config import RunConfig, Stage
from training.data.corpus import Corpus
from training.data.examples import CachedSet, FreshSet, VersionedSet, encode
from training.data.splits import PARTS, folds_of
from training.diagnostics import diagnose, weights
from training.files import read_arrays, read_json, write_arrays, write_json
from training.loop import Progress, fit, logits_of
from training.material import Material, prepare
from training.models.fusion import fit_logistic
from training.models.spectrogram import SpectrogramBranch
from training.ridge import fit_ridge


def train(
    config: RunConfig,
    corpus: Corpus,
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
    only: Literal["context", "spectrogram"] | None = None,
) -> dict[str, Any] | None:
    """Train, fuse and test one run in `folder`; returns its result.json.

    With `only`, train that branch and stop: the two do not depend on each other, so two processes can train them
    side by side and a call without `only` then finds both trained.

    Raises TrainingError before any training when data, split, configuration and folder do not fit together.
    """
    finished = (folder / "result.json").is_file()  # written last
    # Before the run's folder is begun: a backbone that cannot be loaded leaves nothing behind.
    branches = {} if finished else runs.build_branches(config, len(corpus.labels))
    material = prepare(config, corpus, folder, device=device, compiled=compiled, progress=progress, cache=cache)
    if finished:
        return read_json(folder / "result.json")
    runs.keep_backbone(folder, branches[config.context.name].source)
    if only != "spectrogram":
        train_context(material, branches)
    if only != "context":
        train_spectrogram(material, branches)
    if only:
        return None
    parts = [part for part in PARTS if not (config.refit and part == "validation")]  # neither held out nor chosen from
    probabilities = {part: branch_probabilities(material, branches, part) for part in parts}
    fusion = fit_fusion(material, probabilities)
    return report(material, probabilities, fusion)


def train_context(material: Material, branches: dict[str, nn.Module]) -> None:
    """Stage 1: the context branch (AdamW, cosine, best validation accuracy; or ridge regression)."""
    name, stage = material.config.context.name, material.config.context_stage
    if stage.optimizer == "ridge":
        branch = branches[name].to(material.device)
        validation = (clean_features(material, branch, "validation"), material.targets("validation"))
        rows = _all_examples(material, branch, ("train",))
        refit = _all_examples(material, branch, material.fitted_parts) if material.config.refit else None
        # On the CPU: a minute, and the same result whatever made the features.
        folder = material.folder / name
        fit_ridge(name, branch.cpu(), stage, rows, validation, folder, refit=refit, progress=material.progress)
        branch.to(material.device)
    else:
        _train_branch(material, name, branches[name], stage)


def train_spectrogram(material: Material, branches: dict[str, nn.Module]) -> None:
    """Stage 2: the spectrogram branch (SGD, steps, lowest validation loss), standardised by training clips."""
    branch = branches[runs.SPECTROGRAM].to(material.device, memory_format=torch.channels_last)
    branch.standardise.fit(clean_features(material, branch, *material.fitted_parts))
    _train_branch(material, runs.SPECTROGRAM, branch, material.config.spectrogram_stage)


def _train_branch(material: Material, name: str, branch: nn.Module, stage: Stage) -> None:
    branch.to(material.device)
    start = weights(branch)
    validation = (clean_features(material, branch, "validation"), material.targets("validation"))
    held_out = None if material.config.refit else validation
    fit(
        name,
        branch,
        stage,
        training_set(material, branch, material.fitted_parts),
        held_out,
        material.folder / name,
        seed=material.config.seed,
        device=material.device,
        compiled=material.compiled,
        progress=material.progress,
    )
    diagnose(branch, start, validation[0], material.folder / name, material.device)


def training_set(material: Material, branch: nn.Module, parts: tuple[str, ...]) -> CachedSet | FreshSet | VersionedSet:
    """The clips of `parts` as the recipe augments them: fixed copies, encoded once, or fresh versions an epoch."""
    config, targets = material.config, material.targets(*parts)
    if config.augment.versions:
        first = 0 if config.augment.keep_original else 1
        versions = material.features.versions(branch, range(first, config.augment.versions + 1))
        masked, rows = isinstance(branch, SpectrogramBranch), np.array(material.rows(*parts))
        return VersionedSet(versions, rows, targets, config.augment, config.seed, masked)
    if config.augment.fresh:
        recordings = material.recordings(*parts)
        return FreshSet(recordings, targets, branch, config.clip, config.augment, config.seed, material.device)
    if not config.augment.snrs:
        return CachedSet(clean_features(material, branch, *parts), targets, config.seed)
    copies = len(config.augment.snrs) + config.augment.keep_original
    features = encode(branch, material.copies(*parts), material.device, torch.float32)
    return CachedSet(features, targets.repeat_interleave(copies), config.seed)


def _all_examples(material: Material, branch: nn.Module, parts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    examples = training_set(material, branch, parts)
    assert not isinstance(examples, FreshSet)  # RunConfig refuses it
    return examples.examples()


def clean_features(material: Material, branch: nn.Module, *parts: str) -> Tensor:
    """Features (n, …) of the parts' clips as they are served, read from the cache where the run has one."""
    if material.cached_in:
        (clean,) = material.features.versions(branch, range(1))
        return torch.from_numpy(clean[material.rows(*parts)])
    return encode(branch, material.clips(*parts), material.device, torch.float32)


def branch_probabilities(material: Material, branches: dict[str, nn.Module], part: str) -> dict[str, np.ndarray]:
    """What each branch says of a part's clean clips, (n, C) float32 each, in full precision."""
    found = {}
    for name, branch in branches.items():
        features = clean_features(material, branch, part)
        found[name] = logits_of(branch, features, material.device).softmax(dim=1).numpy()
    return found


def fit_fusion(material: Material, probabilities: dict[str, dict[str, np.ndarray]]) -> Fusion:
    """Stage 3: the logistic regression over the branches' probabilities (Adam, best validation macro-F1)."""
    config = material.config

    def said_of(part: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return probabilities[part], material.targets(part).numpy()

    if config.fusion.fit_on == "out-of-fold":
        source = out_of_fold(material)
    else:
        source = said_of({"training": "train", "validation": "validation"}[config.fusion.fit_on])
    held_out = source if config.refit else said_of("validation")
    folder = material.folder / "fusion"
    fusion = fit_logistic(config.fusion, config.fusion_stage, source, held_out, folder, config.seed)
    save_fusion(fusion, material.folder / "fusion.npz")
    return fusion


def out_of_fold(material: Material) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What branches that never trained on a clip say of it, (n, C) each, and the class indices (n,), clip by clip.

    Both branches are trained once a fold, as the run's own are, in `out-of-fold/<fold>`; the run's validation part,
    or with `refit` what the fold leaves of it, stops them, so the fold itself decides nothing. Resumable; the outcome
    is kept in out-of-fold/predictions.npz.
    """
    config, corpus, folder = material.config, material.corpus, material.folder / "out-of-fold"
    held: dict[str, np.ndarray] = {}
    folds = folds_of(corpus, material.split, config.fusion.folds, config.seed, material.fitted_parts)
    for number, part in enumerate(folds):
        place = folder / str(number)
        runs.start(place, config, corpus, part)
        fold = dataclasses.replace(material, split=part, folder=place, cache=material.cached_in)
        for name, found in _fold_probabilities(fold).items():
            rows = held.setdefault(name, np.full((len(corpus), len(corpus.labels)), np.nan, np.float32))
            rows[list(part.test)] = found
    trained = material.rows(*material.fitted_parts)
    probabilities = {name: rows[trained] for name, rows in held.items()}
    targets = material.targets(*material.fitted_parts).numpy()
    arrays = {f"out-of-fold/{name}": rows for name, rows in probabilities.items()}
    write_arrays(folder / "predictions.npz", arrays | {"out-of-fold/targets": targets})
    return probabilities, targets


def _fold_probabilities(fold: Material) -> dict[str, np.ndarray]:
    path = fold.folder / "predictions.npz"
    if path.is_file():
        return read_arrays(path)
    branches = runs.build_branches(fold.config, len(fold.corpus.labels))
    train_context(fold, branches)
    train_spectrogram(fold, branches)
    found = branch_probabilities(fold, branches, "test")
    write_arrays(path, found)
    return found


def report(material: Material, probabilities: dict[str, dict[str, np.ndarray]], fusion: Fusion) -> dict[str, Any]:
    """Measure every part, write predictions.npz and result.json, return the latter."""
    arrays, metrics = {}, {}
    for part, found in probabilities.items():
        truth = material.targets(part).numpy()
        scored = {**found, "fused": fusion(found)}
        metrics[part] = {name: evaluate(truth, p, material.corpus.labels).to_dict() for name, p in scored.items()}
        arrays |= {f"{part}/{name}": p for name, p in scored.items()} | {f"{part}/targets": truth}
        arrays[f"{part}/files"] = np.array([material.corpus.examples[i].file for i in getattr(material.split, part)])
    write_arrays(material.folder / "predictions.npz", arrays)
    write_json(material.folder / "result.json", metrics)
    return metrics
