"""What a stage trains on: features of fixed noisy copies, computed once, or of versions drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ser_batch.clips import ClipRule, Waveform
from training.config import AugmentConfig
from training.data.augment import degraded, fresh_version
from training.data.features import Encoding, Features

Rows = Callable[[np.ndarray], Tensor]
"""Indices (b,) of examples → their features (b, …)."""


class TrainingSet:
    """A source of training batches."""

    targets: Tensor
    """(N,) int64 class indices, or (N, classes) int8 sets of classes."""
    seed: int
    weights: np.ndarray | None = None
    """(N,) how often each is drawn, of sum 1; None: once an epoch."""

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled (features (b, …), targets (b, …)) of one epoch; the same for the same epoch."""
        rows = self.epoch(epoch)
        for index in shuffled(len(self), size, (self.seed, epoch), self.weights):
            yield rows(index), self.targets[index]

    def epoch(self, epoch: int) -> Rows:
        """What gives the features of one epoch's batches, asked for in their order."""
        raise NotImplementedError

    def examples(self) -> tuple[Tensor, Tensor]:
        """All features (N, …) and class indices (N,), for what is fitted without batches."""
        raise NotImplementedError


def shuffled(number: int, size: int, seed: tuple[int, ...], weights: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Index batches of a permutation, or of as many draws by `weights`.

    A last batch of one is dropped, since batch norm cannot train on it.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(number) if weights is None else rng.choice(number, size=number, p=weights)
    for start in range(0, number, size):
        if number - start > 1:
            yield order[start : start + size]


@dataclass(frozen=True)
class CachedSet(TrainingSet):
    """Features that no gradient reaches, computed once and kept in memory."""

    features: Tensor
    """(N, …), on the CPU."""
    targets: Tensor
    seed: int
    weights: np.ndarray | None = None

    def epoch(self, epoch: int) -> Rows:
        """The same features in every epoch."""
        return lambda index: self.features[index].float()

    def examples(self) -> tuple[Tensor, Tensor]:
        """All features (N, …) and class indices (N,)."""
        return self.features.float(), self.targets


@dataclass(frozen=True)
class FreshSet(TrainingSet):
    """Recordings augmented anew each epoch, their features computed on the way."""

    recordings: list[Waveform]
    targets: Tensor
    branch: Encoding
    rule: ClipRule
    augment: AugmentConfig
    seed: int
    device: torch.device
    masked: bool = False
    """Whether the features are a spectrogram, which SpecAugment can mask."""
    weights: np.ndarray | None = None

    def epoch(self, epoch: int) -> Rows:
        """Features of versions that are drawn for this epoch."""
        numbers = count()

        def rows(index: np.ndarray) -> Tensor:
            rng = np.random.default_rng((self.seed, epoch, next(numbers)))
            versions = [fresh_version(self.recordings[i], self.rule, self.augment, rng) for i in index]
            with torch.no_grad():
                features = self.branch.features(torch.from_numpy(np.stack(versions)).to(self.device))
            return mask_spectrogram(features, self.augment, rng) if self.masked else features

        return rows


@dataclass(frozen=True)
class VersionedSet(TrainingSet):
    """Cached versions of each recording's features, of which an epoch takes one per recording."""

    versions: Sequence[Features | np.ndarray]
    """(N, …) each, in memory or mapped from disk."""
    targets: Tensor
    augment: AugmentConfig
    seed: int
    masked: bool = False
    """Whether the features are a spectrogram, which SpecAugment can mask."""
    rate: int = 0
    """Hz of features that are waveforms, which noise and channel are drawn for each time; 0: they are none."""
    weights: np.ndarray | None = None

    def epoch(self, epoch: int) -> Rows:
        """Features of the version that this epoch draws for each recording, or for each batch that it is drawn in."""
        rng = np.random.default_rng((self.seed, epoch, 1))
        drawn = rng.integers(len(self.versions), size=len(self))

        def rows(index: np.ndarray) -> Tensor:
            found = [np.float32(self.versions[drawn[i]][i]) for i in index]
            if self.rate:
                found = [standardised(degraded(waveform, self.rate, self.augment, rng)) for waveform in found]
            features = torch.from_numpy(np.stack(found))
            return mask_spectrogram(features, self.augment, rng) if self.masked else features

        return rows

    def examples(self) -> tuple[Tensor, Tensor]:
        """Every version of every recording, unmasked: features (V · N, …) and class indices (V · N,)."""
        features = np.concatenate([np.asarray(version) for version in self.versions])
        return torch.from_numpy(features), torch.cat([self.targets] * len(self.versions))


def standardised(waveform: Waveform) -> Waveform:
    """The waveform (n,) at mean 0 and deviation 1; silence stays silent."""
    centred = waveform - waveform.mean()
    return centred / (centred.std() or np.float32(1.0))


def mask_spectrogram(features: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """SpecAugment: two stretches of frames and two of bands per clip set to the clip's mean; (B, F, T) → same."""
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
