"""`bench training`: how fast epochs of `training.loop.fit` and the features before them are, on synthetic clips.

By size, epochs go over clean features that are there already; by recipe, over what the recipe trains on, augmentation
included: fixed noisy copies, versions whose features are cached, or clips drawn anew. What a recipe draws once is drawn
before the clock starts.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.peak import check_device
from bench.peers.models import random_branches
from bench.processes import peak_resident, reset_peak
from bench.timing import Series, take, warnings
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.errors import InputError
from training.config import RunConfig, Stage, load_config
from training.data.augment import fresh_version, noisy_copies
from training.data.examples import CachedSet, FreshSet, TrainingSet, VersionedSet
from training.data.features import encode
from training.data.ravdess import LABELS
from training.loop import autocast, fit
from training.models.backbones import ENCODER_RATE
from training.models.spectrogram import SpectrogramBranch
from training.runs import NEITHER_NOISE_NOR_CHANNEL, build_branches
from training.runtime import Runtime
from training.stages import cached_part

_log = logging.getLogger(__name__)
EPOCH = 1147
"""Clips of the paper's training part, for which an epoch's seconds are given."""


@dataclass(frozen=True)
class TrainingRate:
    """One branch of a recipe."""

    size: str
    """Of the model, or the name of the recipe."""
    branch: str
    device: str
    precision: str
    """Of the forward products under autocast."""
    batch: int
    clips: int
    """Examples per epoch of the measurement."""
    parameters: int
    trained: int
    """Parameters that a gradient reaches."""
    encode_clips_per_second: float
    """Of the features that no gradient reaches, which are computed once per training."""
    seconds: Series
    """Per epoch, validation on two clips included, without the first epoch, which is warm-up."""
    clips_per_second: float
    epoch_seconds: float
    """Of `EPOCH` recordings at that rate, with the copies that the recipe makes of each."""
    peak_rss: int
    """Bytes."""
    warnings: list[str]


def measure_training(
    size: str,
    *,
    clips: int,
    epochs: int,
    device: str = "cpu",
    recipe: str | None = None,
    backbone: str | None = None,
) -> Iterator[TrainingRate]:
    """Every branch of the model of `size` (see `bench.peers.models`), with its recipe's batch size and optimiser.

    Args:
        recipe: name or .toml file of a recipe, instead of a size: its branches train on what it augments.
        backbone: of that recipe, in place of its own.

    Raises:
        InputError: no such size, or too few clips to fill a batch of two.
        TrainingError: no such recipe, or its backbone cannot be loaded.
        EngineError: no GPU where one is asked for.
    """
    check_device(device)
    if clips < 2:
        raise InputError("training needs clips for a batch", got=clips, expected="2 or more")
    if recipe is None:
        config, branches = random_branches(size)
    else:
        config = load_config(recipe)
        if backbone:
            config = replace(config, context=replace(config.context, backbone=backbone))
        branches, size = build_branches(config, len(LABELS)), config.recipe
    for name, branch in branches.items():
        stage = config.context_stage if name == config.context.name else config.spectrogram_stage
        if stage.optimizer != "ridge":  # which has no epochs
            yield _measure(size, name, branch, config, stage, clips, epochs, torch.device(device), recipe is not None)


def _measure(
    size: str,
    name: str,
    branch: nn.Module,
    config: RunConfig,
    stage: Stage,
    clips: int,
    epochs: int,
    device: torch.device,
    augmented: bool,
) -> TrainingRate:
    reset_peak()
    branch.to(device)
    waveforms = take(synthetic_clips(config.clip), clips, 0)
    started = time.perf_counter()
    features = encode(branch, waveforms, device)
    encoding = time.perf_counter() - started
    examples = (
        augmented_set(branch, waveforms, config, device)
        if augmented
        else CachedSet(features, _labels(clips), config.seed)
    )
    # Random labels get no better, so patience must not end the training.
    stage = replace(stage, epochs=epochs + 1, patience=epochs + 2)
    seconds = Series.of(_epochs(name, branch, stage, examples, features[:2], device)[1:])
    rate = len(examples) / seconds.median
    return TrainingRate(
        size=size,
        branch=name,
        device=device.type,
        precision="bf16" if autocast(device)._enabled else "fp32",
        batch=stage.batch_size,
        clips=len(examples),
        parameters=sum(p.numel() for p in branch.parameters()),
        trained=sum(p.numel() for p in branch.parameters() if p.requires_grad),
        encode_clips_per_second=clips / encoding,
        seconds=seconds,
        clips_per_second=rate,
        epoch_seconds=EPOCH * len(examples) / clips / rate,
        peak_rss=peak_resident(),
        warnings=warnings({"total": seconds}),
    )


def augmented_set(
    branch: nn.Module, waveforms: list[np.ndarray], config: RunConfig, device: torch.device
) -> TrainingSet:
    """What a recipe trains a branch on, as `training.stages.training_set` makes it of a corpus, of clips at hand."""
    augment, targets = config.augment, _labels(len(waveforms))
    masked = isinstance(branch, SpectrogramBranch)
    if not augment.fresh:
        copies = [copy for i, clip in enumerate(waveforms) for copy in noisy_copies(clip, augment, (config.seed, i))]
        repeated = targets.repeat_interleave(len(copies) // len(waveforms))
        return CachedSet(encode(branch, copies, device), repeated, config.seed)
    if not augment.versions:
        return FreshSet(waveforms, targets, branch, config.clip, augment, config.seed, device, masked)
    part, rng = cached_part(branch), np.random.default_rng(config.seed)
    plain = replace(augment, **NEITHER_NOISE_NOR_CHANNEL) if part is not branch else augment
    versions = [
        encode(part, (fresh_version(clip, config.clip, plain, rng) for clip in waveforms), device).numpy()
        for _ in range(augment.versions + augment.keep_original)
    ]
    rate = 0 if part is branch else ENCODER_RATE
    return VersionedSet(versions, targets, augment, config.seed, masked, rate)


def _labels(clips: int) -> torch.Tensor:
    return torch.arange(clips) % len(LABELS)


def _epochs(
    name: str,
    branch: nn.Module,
    stage: Stage,
    examples: TrainingSet,
    validation: torch.Tensor,
    device: torch.device,
) -> list[float]:
    """Seconds of every epoch of `stage` on `examples`, with made-up labels."""
    seconds: list[float] = []

    def told(_: str, row: dict[str, Any]) -> None:
        seconds.append(row["seconds"])
        _log.info(f"{name}, epoch {len(seconds)}: {seconds[-1]:.2f} s")

    with tempfile.TemporaryDirectory() as folder:
        fit(
            name,
            branch,
            stage,
            examples,
            (validation, _labels(len(validation))),
            Path(folder),
            runtime=Runtime(device=device, progress=told),
        )
    return seconds
