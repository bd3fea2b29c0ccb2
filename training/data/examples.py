"""What a stage trains on: features of fixed noisy copies, computed once, or of versions drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.clips import ClipRule, Waveform
from training.config import AugmentConfig
from training.data.augment import fresh_version
from training.models.spectrogram import SpectrogramBranch

ENCODE_BATCH = 32
"""Clips whose features are computed at a time."""


class TrainingSet(Protocol):
    """A source of training batches."""

    def __len__(self) -> int:
        """Examples an epoch."""
        ...

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled (features (b, …), class indices (b,)) of one epoch; the same for the same epoch."""
        ...


def shuffled(count: int, size: int, seed: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Index batches of a permutation; a last batch of one is dropped, since batch norm cannot train on it."""
    order = np.random.default_rng(seed).permutation(count)
    for start in range(0, count, size):
        if count - start > 1:
            yield order[start : start + size]


@dataclass(frozen=True)
class CachedSet:
    """Features that no gradient reaches, computed once and kept in memory."""

    features: Tensor
    """(N, …), on the CPU, in the precision they were cached in."""
    targets: Tensor
    """(N,) int64 class indices."""
    seed: int

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index in shuffled(len(self), size, (self.seed, epoch)):
            yield self.features[index].float(), self.targets[index]

    def examples(self) -> tuple[Tensor, Tensor]:
        """All features (N, …) and class indices (N,), for what is fitted without batches."""
        return self.features.float(), self.targets


@dataclass(frozen=True)
class FreshSet:
    """Recordings augmented anew each epoch, their features computed on the way."""

    recordings: list[Waveform]
    targets: Tensor
    branch: nn.Module
    rule: ClipRule
    augment: AugmentConfig
    seed: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.recordings)

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, index in enumerate(shuffled(len(self), size, (self.seed, epoch))):
            rng = np.random.default_rng((self.seed, epoch, number))
            versions = [fresh_version(self.recordings[i], self.rule, self.augment, rng) for i in index]
            with torch.no_grad():
                features = self.branch.features(torch.from_numpy(np.stack(versions)).to(self.device))
            if isinstance(self.branch, SpectrogramBranch):  # features of a speech encoder have no bands to mask
                features = mask_spectrogram(features, self.augment, rng)
            yield features, self.targets[index]


@dataclass(frozen=True)
class VersionedSet:
    """Cached versions of each recording's features, of which an epoch takes one a recording."""

    versions: list[np.ndarray]
    """(recordings of the corpus, …) float32 each, in memory or mapped from disk."""
    rows: np.ndarray
    """(N,) the recordings that are trained on."""
    targets: Tensor
    """(N,) int64 class indices."""
    augment: AugmentConfig
    seed: int
    masked: bool
    """Whether the features are a spectrogram, which SpecAugment can mask."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((self.seed, epoch, 1))
        drawn = rng.integers(len(self.versions), size=len(self))
        for index in shuffled(len(self), size, (self.seed, epoch)):
            clips = [self.versions[drawn[i]][self.rows[i]] for i in index]
            features = torch.from_numpy(np.stack(clips))
            yield mask_spectrogram(features, self.augment, rng) if self.masked else features, self.targets[index]

    def examples(self) -> tuple[Tensor, Tensor]:
        """Every version of every recording, unmasked: features (V · N, …) and class indices (V · N,)."""
        features = np.concatenate([version[self.rows] for version in self.versions])
        return torch.from_numpy(features), self.targets.repeat(len(self.versions))


def mask_spectrogram(features: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """SpecAugment: two stretches of frames and two of bands a clip set to the clip's mean; (B, F, T) → same."""
    if features.ndim != 3 or not (augment.time_mask or augment.band_mask):
        return features
    features = features.clone()
    for clip in features:
        mean = clip.mean()
        for axis, widest in ((0, augment.band_mask), (1, augment.time_mask)):
            for _ in range(2):
                width = int(rng.integers(widest + 1))
                start = int(rng.integers(clip.shape[axis] - width + 1))
                clip.narrow(axis, start, width).fill_(mean)
    return features


def encode(branch: nn.Module, waveforms: Iterable[Waveform], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Features (N, …) of waveforms (144000,) each, by `branch.features` in evaluation mode, on the CPU as `dtype`."""
    branch.eval()
    parts, remaining = [], iter(waveforms)
    with torch.no_grad():
        while chunk := list(islice(remaining, ENCODE_BATCH)):
            batch = torch.from_numpy(np.stack(chunk)).to(device)
            parts.append(branch.features(batch).to("cpu", dtype))
    return torch.cat(parts)
