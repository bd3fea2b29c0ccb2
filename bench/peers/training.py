"""How fast a branch trains here: epochs of `training.loop.fit` on features of synthetic clips, and those features."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.memory import peak_resident, reset_peak
from bench.peers.models import random_branches
from bench.peers.torch_engine import check_device
from bench.samples import Series, warnings
from bench.targets import take
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
    """An epoch of the measurement."""
    parameters: int
    trained: int
    """Parameters that a gradient reaches."""
    encode_clips_per_second: float
    """What no gradient reaches, computed once a training."""
    seconds: Series
    """An epoch, validation on two clips included; the first is warm-up and left out."""
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
        stage = config.context_stage if name == config.context.name else config.spectrogram_stage
        yield _measure(size, name, branch, stage, config, clips, epochs, torch.device(device))


def _measure(
    size: str,
    name: str,
    branch: nn.Module,
    stage: Stage,
    config: RunConfig,
    clips: int,
    epochs: int,
    device: torch.device,
) -> TrainingRate:
    reset_peak()
    branch.to(device)
    waveforms = take(synthetic_clips(config.clip), clips, 0)
    started = time.perf_counter()
    features = encode(branch, waveforms, device)
    encoding = time.perf_counter() - started
    targets = torch.from_numpy(np.arange(clips) % 8)
    # Patience is without end here, since random labels get no better.
    stage = replace(stage, epochs=epochs + 1, patience=epochs + 2)
    epoch: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            name,
            branch,
            stage,
            CachedSet(features, targets, config.seed),
            (features[:2], targets[:2]),
            Path(folder),
            runtime=Runtime(device=device, progress=lambda _, row: epoch.append(row["seconds"])),
        )
    seconds = Series.of(epoch[1:])
    rate = clips / seconds.median
    enabled = autocast(device)._enabled
    return TrainingRate(
        size=size,
        branch=name,
        device=device.type,
        precision="bf16" if enabled else "fp32",
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
