"""`bench training`: how fast epochs of `training.loop.fit` and the features before them are, on synthetic clips."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bench.peak import check_device
from bench.peers.models import random_branches
from bench.processes import peak_resident, reset_peak
from bench.timing import Series, take, warnings
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.errors import InputError
from training.config import RunConfig, Stage
from training.data.examples import CachedSet
from training.data.features import encode
from training.loop import autocast, fit
from training.runtime import Runtime

EPOCH = 1147
"""Clips of the paper's training part, for which an epoch's seconds are given."""


@dataclass(frozen=True)
class TrainingRate:
    """One branch of a recipe."""

    size: str
    branch: str
    device: str
    precision: str
    """Of the forward products under autocast."""
    batch: int
    clips: int
    """Per epoch of the measurement."""
    parameters: int
    trained: int
    """Parameters that a gradient reaches."""
    encode_clips_per_second: float
    """Of the features that no gradient reaches, which are computed once per training."""
    seconds: Series
    """Per epoch, validation on two clips included, without the first epoch, which is warm-up."""
    clips_per_second: float
    epoch_seconds: float
    """Of `EPOCH` clips at that rate."""
    peak_rss: int
    """Bytes."""
    warnings: list[str]


def measure_training(size: str, *, clips: int, epochs: int, device: str = "cpu") -> Iterator[TrainingRate]:
    """Every branch of the model of `size` (see `bench.peers.models`), with its recipe's batch size and optimiser.

    Raises:
        InputError: no such size, or too few clips to fill a batch of two.
        EngineError: no GPU where one is asked for.
    """
    check_device(device)
    if clips < 2:
        raise InputError("training needs clips for a batch", got=clips, expected="2 or more")
    config, branches = random_branches(size)
    for name, branch in branches.items():
        yield _measure(size, name, branch, config, clips, epochs, torch.device(device))


def _measure(
    size: str, name: str, branch: nn.Module, config: RunConfig, clips: int, epochs: int, device: torch.device
) -> TrainingRate:
    reset_peak()
    branch.to(device)
    waveforms = take(synthetic_clips(config.clip), clips, 0)
    started = time.perf_counter()
    features = encode(branch, waveforms, device)
    encoding = time.perf_counter() - started
    stage = config.context_stage if name == config.context.name else config.spectrogram_stage
    # Random labels get no better, so patience must not end the training.
    stage = replace(stage, epochs=epochs + 1, patience=epochs + 2)
    seconds = Series.of(_epochs(name, branch, stage, features, config.seed, device)[1:])
    rate = clips / seconds.median
    return TrainingRate(
        size=size,
        branch=name,
        device=device.type,
        precision="bf16" if autocast(device)._enabled else "fp32",
        batch=stage.batch_size,
        clips=clips,
        parameters=sum(p.numel() for p in branch.parameters()),
        trained=sum(p.numel() for p in branch.parameters() if p.requires_grad),
        encode_clips_per_second=clips / encoding,
        seconds=seconds,
        clips_per_second=rate,
        epoch_seconds=EPOCH / rate,
        peak_rss=peak_resident(),
        warnings=warnings({"total": seconds}),
    )


def _epochs(
    name: str, branch: nn.Module, stage: Stage, features: torch.Tensor, seed: int, device: torch.device
) -> list[float]:
    """Seconds of every epoch of `stage` on `features`, with made-up labels."""
    targets = torch.arange(len(features)) % 8
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            name,
            branch,
            stage,
            CachedSet(features, targets, seed),
            (features[:2], targets[:2]),
            Path(folder),
            runtime=Runtime(device=device, progress=lambda _, row: seconds.append(row["seconds"])),
        )
    return seconds
