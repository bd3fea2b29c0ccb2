"""The staged training: context branch, spectrogram branch, fusion; then the test.

Source: paper, section IV-B and Table II. Each stage is one function that takes the run and leaves its result in the
run's folder; `train` runs them in order and goes on where a killed run stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.bundle.fusion import FUSED, Fusion, save_fusion
from ser_batch.evaluation.metrics import evaluate
from ser_batch.files import write_json
from training import runs
from training.config import BranchOfRecipe, RunConfig, Stage
from training.data.background import background_clip
from training.data.corpora import by_corpus
from training.data.corpus import Corpus
from training.data.examples import CachedSet, FreshSet, TrainingSet, VersionedSet, WithBackground
from training.data.features import encode
from training.data.splits import PARTS, Split, folds_of
from training.diagnostics import diagnose, trained_bandwidth, weights
from training.files import read_arrays, read_json, write_arrays
from training.loop import fit, logits_of
from training.models.backbones import ENCODER_RATE, EncoderInput
from training.models.context import FROM_INPUT, ContextBranch
from training.models.fusion import Labelled, Probabilities, fit_logistic
from training.models.ridge import fit_ridge
from training.models.spectrogram import SpectrogramBranch
from training.runs import TrainingRun
from training.runtime import Runtime

BACKGROUND = 400
"""Clips without speech that a stage draws from, where its recipe asks for any."""


def train(
    config: RunConfig,
    corpus: Corpus,
    folder: Path,
    runtime: Runtime | None = None,
    *,
    only: BranchOfRecipe | None = None,
) -> dict[str, Any] | None:
    """Train, fuse and test one run in `folder`; returns its result.json.

    With `only`, train that branch and stop: the two do not depend on each other, so two processes can train them
    side by side and a call without `only` then finds both trained.

    Raises TrainingError before any training when data, split, configuration and folder do not fit together.
    """
    finished = (folder / "result.json").is_file()  # written last
    # Before the run's folder is begun: a backbone that cannot be loaded leaves nothing behind.
    branches = {} if finished else runs.build_branches(config, len(corpus.labels))
    run = runs.begin(config, corpus, folder, runtime)
    if finished:
        return read_json(folder / "result.json")
    runs.share_backbone(folder, branches[config.context.name])
    if only != "spectrogram":
        train_context(run, branches)
    if only != "context":
        train_spectrogram(run, branches)
    if only:
        return None
    parts = [part for part in PARTS if not (config.refit and part == "validation")]  # neither held out nor chosen from
    probabilities = {part: branch_probabilities(run, branches, part) for part in parts}
    fusion = fit_fusion(run, probabilities)
    return report(run, probabilities, fusion)


def train_context(run: TrainingRun, branches: dict[str, nn.Module]) -> None:
    """Stage 1: the context branch (AdamW, cosine, best validation accuracy; or ridge regression)."""
    name, stage = run.config.context.name, run.config.context_stage
    if stage.optimizer == "ridge":
        branch = branches[name].to(run.runtime.device)
        validation = (clean_features(run, branch, "validation"), run.targets("validation"))
        rows = training_set(run, branch, ("train",)).examples()
        refit = training_set(run, branch, run.fitted_parts).examples() if run.config.refit else None
        # On the CPU: it takes a minute, and gives the same result whatever made the features.
        fit_ridge(name, branch.cpu(), stage, rows, validation, run.folder / name, refit=refit, runtime=run.runtime)
        branch.to(run.runtime.device)
    else:
        examples = training_set(run, branches[name].to(run.runtime.device), run.fitted_parts)
        _train_branch(run, name, branches[name], stage, examples)


def train_spectrogram(run: TrainingRun, branches: dict[str, nn.Module]) -> None:
    """Stage 2: the spectrogram branch (SGD, steps, lowest validation loss), standardised by training clips."""
    branch = branches[runs.SPECTROGRAM].to(run.runtime.device, memory_format=torch.channels_last)
    examples, stage = training_set(run, branch, run.fitted_parts), run.config.spectrogram_stage
    if run.config.spectrogram.statistics == "clean":
        branch.standardise.fit(clean_features(run, branch, *run.fitted_parts))
    else:
        branch.standardise.fit(features for features, _ in examples.batches(0, stage.batch_size))
    _train_branch(run, runs.SPECTROGRAM, branch, stage, examples)


def _train_branch(run: TrainingRun, name: str, branch: nn.Module, stage: Stage, examples: TrainingSet) -> None:
    start = weights(branch)
    validation = (clean_features(run, branch, "validation"), run.targets("validation"))
    held_out = None if run.config.refit else validation
    fit(name, branch, stage, examples, held_out, run.folder / name, seed=run.config.seed, runtime=run.runtime)
    diagnose(branch, start, validation[0], run.folder / name, run.runtime.device)


def training_set(run: TrainingRun, branch: nn.Module, parts: tuple[str, ...]) -> TrainingSet:
    """The clips of `parts` as the recipe augments them, and beside them the clips without speech that it asks for."""
    targets, share = run.targets(*parts), run.config.augment.background
    if not share:
        return _speech(run, branch, parts, targets)
    if targets.ndim == 1:
        targets = nn.functional.one_hot(targets, len(run.corpus.labels)).to(torch.int8)
    return WithBackground(_speech(run, branch, parts, targets), lambda: _background(run, branch), share)


def _background(run: TrainingRun, branch: nn.Module) -> Tensor:
    """Features (BACKGROUND, …) of clips without speech; the branch stays in the mode that it is in."""
    config, training = run.config, branch.training
    drawn = (
        background_clip(config.clip, config.augment, np.random.default_rng((config.seed, number)))
        for number in range(BACKGROUND)
    )
    features = encode(cached_part(branch), drawn, run.runtime.device)
    branch.train(training)
    return features


def _speech(run: TrainingRun, branch: nn.Module, parts: tuple[str, ...], targets: Tensor) -> TrainingSet:
    """Fixed copies, encoded once, or fresh versions every epoch."""
    config, device = run.config, run.runtime.device
    masked = isinstance(branch, SpectrogramBranch)  # features of a speech encoder have no bands to mask
    weights = run.weights(*parts)
    if config.augment.versions:
        encoding = cached_part(branch)
        first, rate = 0 if config.augment.keep_original else 1, 0 if encoding is branch else ENCODER_RATE
        cache = run.features(*parts, waveforms=rate > 0)
        versions = cache.versions(encoding, range(first, config.augment.versions + 1))
        return VersionedSet(versions, targets, config.augment, config.seed, masked, rate, weights)
    if config.augment.fresh:
        recordings = run.recordings(*parts)
        return FreshSet(recordings, targets, branch, config.clip, config.augment, config.seed, device, masked, weights)
    if not config.augment.snrs:
        return CachedSet(clean_features(run, branch, *parts), targets, config.seed, weights)
    copies = len(config.augment.snrs) + config.augment.keep_original
    features = encode(branch, run.copies(*parts), device)
    if weights is not None:
        weights = np.repeat(weights, copies) / copies
    return CachedSet(features, targets.repeat_interleave(copies, dim=0), config.seed, weights)


def cached_part(branch: nn.Module) -> nn.Module:
    """What of the branch is cached in versions: all that does not train.

    Of an encoder that trains from the waveform on, that is the waveform itself at the encoder's rate, without noise
    and channel, which are then drawn anew each time.
    """
    trains = isinstance(branch, ContextBranch) and branch.cut == FROM_INPUT
    return EncoderInput() if trains and branch.takes_standardised_waveforms else branch


def clean_features(run: TrainingRun, branch: nn.Module, *parts: str) -> Tensor:
    """Features (n, …) of the parts' clips as they are served, read from the cache where the run has one."""
    if run.cache:
        (clean,) = run.features(*parts).versions(cached_part(branch), range(1))
        return torch.from_numpy(np.asarray(clean))
    return encode(branch, run.clips(*parts), run.runtime.device)


def branch_probabilities(run: TrainingRun, branches: dict[str, nn.Module], part: str) -> dict[str, np.ndarray]:
    """Each branch's probabilities of a part's clean clips, (n, C) float32, in full precision."""
    return {
        name: logits_of(branch, clean_features(run, branch, part), run.runtime.device).softmax(dim=1).numpy()
        for name, branch in branches.items()
    }


def fit_fusion(run: TrainingRun, probabilities: dict[str, Probabilities]) -> Fusion:
    """Stage 3: the logistic regression over the branches' probabilities (Adam, best validation macro-F1)."""
    config = run.config

    def labelled(part: str) -> Labelled:
        return probabilities[part], run.targets(part).numpy()

    if config.fusion.fit_on == "out-of-fold":
        source = out_of_fold(run)
    else:
        source = labelled({"training": "train", "validation": "validation"}[config.fusion.fit_on])
    held_out = source if config.refit else labelled("validation")
    fusion = fit_logistic(
        config.fusion,
        config.fusion_stage,
        source,
        held_out,
        run.folder / "fusion",
        config.seed,
        weights=run.weights(*run.fitted_parts) if config.fusion.fit_on == "out-of-fold" else None,
    )
    save_fusion(fusion, run.folder / "fusion.npz")
    return fusion


def out_of_fold(run: TrainingRun) -> Labelled:
    """Probabilities (n, C) by branches that never trained on a clip, and the class indices (n,), clip by clip.

    Both branches are trained once per fold, as the run's own are, in `out-of-fold/<fold>`; the run's validation part,
    or with `refit` what the fold leaves of it, stops them, so the fold itself decides nothing. Resumable; the outcome
    is kept in out-of-fold/predictions.npz.
    """
    corpus, folder = run.corpus, run.folder / "out-of-fold"
    rows: dict[str, np.ndarray] = {}
    folds = folds_of(corpus, run.split, run.config.fusion.folds, run.config.seed, run.fitted_parts)
    for number, split in enumerate(folds):
        without = f" (without {corpus.examples[split.test[0]].corpus})" if corpus.sets else ""
        what = f"fold {number + 1} of {len(folds)}{without}"
        for name, found in _fold_probabilities(run, folder / str(number), split, what).items():
            whole = rows.setdefault(name, np.full((len(corpus), len(corpus.labels)), np.nan, np.float32))
            whole[list(split.test)] = found
    trained, targets = run.rows(*run.fitted_parts), run.targets(*run.fitted_parts).numpy()
    probabilities = {name: whole[trained] for name, whole in rows.items()}
    arrays = {f"out-of-fold/{name}": found for name, found in probabilities.items()}
    write_arrays(folder / "predictions.npz", arrays | {"out-of-fold/targets": targets})
    return probabilities, targets


def _fold_probabilities(run: TrainingRun, folder: Path, split: Split, what: str) -> dict[str, np.ndarray]:
    fold, path = run.within(folder, split, what), folder / "predictions.npz"
    if not path.is_file():
        branches = runs.build_branches(run.config, len(run.corpus.labels))
        runs.share_backbone(run.folder, branches[run.config.context.name])
        train_context(fold, branches)
        train_spectrogram(fold, branches)
        write_arrays(path, branch_probabilities(fold, branches, "test"))
    return read_arrays(path)


def report(run: TrainingRun, probabilities: dict[str, dict[str, np.ndarray]], fusion: Fusion) -> dict[str, Any]:
    """Measure every part, write predictions.npz and result.json, return the latter."""
    arrays, metrics = {}, {}
    for part, found in probabilities.items():
        truth = run.targets(part).numpy()
        scored = {**found, FUSED: fusion(found)}
        metrics[part] = {name: _measured(run, part, p) for name, p in scored.items()}
        arrays |= {f"{part}/{name}": p for name, p in scored.items()} | {f"{part}/targets": truth}
        arrays[f"{part}/files"] = np.array([run.corpus.examples[i].file for i in getattr(run.split, part)])
    write_arrays(run.folder / "predictions.npz", arrays)
    write_json(run.folder / runs.BANDWIDTH, {"hertz": trained_bandwidth(run)})
    write_json(run.folder / "result.json", metrics)
    return metrics


def _measured(run: TrainingRun, part: str, probabilities: np.ndarray) -> dict[str, Any]:
    """Figures of a part's clips by their probabilities (n, C); of joined corpora, those of each and the mean UA."""
    if not run.corpus.sets:
        return evaluate(run.targets(part).numpy(), probabilities, run.corpus.labels).to_dict()
    found = {
        name: evaluate(truth, own, labels).to_dict()
        for name, (truth, own, labels) in by_corpus(run.corpus, run.rows(part), probabilities).items()
    }
    return {"corpora": found, "ua": float(np.mean([figures["ua"] for figures in found.values()]))}
