"""What a stage trains on: features of fixed noisy copies, computed once, or of versions drawn anew each epoch.

Threads draw them while a step runs (numpy, soxr and libsndfile let go of Python's lock while they compute); they are
given out in order, so that no result depends on the threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat, takewhile
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ser_batch.clips import ClipRule, Waveform
from ser_batch.machine import usable_cpus
from training.config import AugmentConfig
from training.data.augment import degraded, fresh_version
from training.data.features import Encoding, Features
from training.runtime import has_room, upload

Draw = Callable[[int, np.ndarray], Any]
"""Number of a batch in its epoch, indices (b,) of its examples → what is drawn of them, in any order and any thread."""
Finish = Callable[[Any], Tensor]
"""What was drawn → features (b, …), batch by batch in order."""
WORKERS = min(8, usable_cpus())
"""Threads that make batches, each of them a whole one; as many batches are ready or on the way."""
Item, Made = TypeVar("Item"), TypeVar("Made")


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
        draw, finish = self.epoch(epoch)
        numbered = enumerate(shuffled(len(self), size, (self.seed, epoch), self.weights))
        for index, drawn in ahead(lambda each: (each[1], draw(*each)), numbered):
            yield finish(drawn), self.targets[index]

    def epoch(self, epoch: int) -> tuple[Draw, Finish]:
        """What makes the features of one epoch's batches: the work of threads ahead of the steps, and what is left."""
        raise NotImplementedError

    def on(self, device: torch.device) -> TrainingSet:
        """The same examples, on the device where they are ready and it has room for them."""
        return self

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
    """(N, …)"""
    targets: Tensor
    seed: int
    weights: np.ndarray | None = None

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As every training set's. The order goes to the device once an epoch, so that no step waits for a copy."""
        order = list(shuffled(len(self), size, (self.seed, epoch), self.weights))
        indices = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *order])).to(self.features.device)
        for index in indices.split([len(batch) for batch in order]):
            yield self.features[index].float(), self.targets[index]

    def on(self, device: torch.device) -> CachedSet:
        """The features on the device, if it has room for them."""
        if not has_room(self.features, device):
            return self
        return replace(self, features=self.features.to(device), targets=self.targets.to(device))

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

    def epoch(self, epoch: int) -> tuple[Draw, Finish]:
        """Features of versions that are drawn for this epoch."""

        def draw(number: int, index: np.ndarray) -> tuple[Tensor, np.random.Generator]:
            rng = np.random.default_rng((self.seed, epoch, number))
            versions = [fresh_version(self.recordings[i], self.rule, self.augment, rng) for i in index]
            return torch.from_numpy(np.stack(versions)), rng

        def finish(drawn: tuple[Tensor, np.random.Generator]) -> Tensor:
            versions, rng = drawn
            with torch.no_grad():
                features = self.branch.features(upload(versions, self.device))
            return mask_spectrogram(features, self.augment, rng) if self.masked else features

        return draw, finish


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

    def epoch(self, epoch: int) -> tuple[Draw, Finish]:
        """Features of the version that this epoch draws for each recording, or for each batch that it is drawn in."""
        rng = np.random.default_rng((self.seed, epoch, 1))
        drawn = rng.integers(len(self.versions), size=len(self))

        def draw(number: int, index: np.ndarray) -> Tensor:
            found = [np.float32(self.versions[drawn[i]][i]) for i in index]
            if self.rate:
                own = np.random.default_rng((self.seed, epoch, 2, number))
                found = [standardised(degraded(waveform, self.rate, self.augment, own)) for waveform in found]
            return torch.from_numpy(np.stack(found))

        return draw, lambda features: mask_spectrogram(features, self.augment, rng) if self.masked else features

    def examples(self) -> tuple[Tensor, Tensor]:
        """Every version of every recording, unmasked: features (V · N, …) and class indices (V · N,)."""
        features = np.concatenate([np.asarray(version) for version in self.versions])
        return torch.from_numpy(features), torch.cat([self.targets] * len(self.versions))


@dataclass(frozen=True)
class WithBackground(TrainingSet):
    """Another set whose batches have clips without speech beside theirs, of which every label is equally right."""

    speech: TrainingSet
    encoded: Callable[[], Tensor]
    """Makes the features (M, …) of clips without speech, once a batch is asked for: a finished stage needs none."""
    share: float
    """Of a batch's clips, so many more are drawn."""

    @property
    def targets(self) -> Tensor:  # type: ignore[override]
        """Those of the speech."""
        return self.speech.targets

    @cached_property
    def background(self) -> Tensor:
        """Features (M, …) of clips without speech."""
        return self.encoded()

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The speech's batches, (1 + share) times as large."""
        rng = np.random.default_rng((self.speech.seed, epoch, 3))
        for features, targets in self.speech.batches(epoch, size):
            found = self.background[rng.integers(len(self.background), size=round(self.share * len(features)))]
            added = upload(found.to(features.dtype), features.device)
            yield torch.cat([features, added]), torch.cat([targets, targets.new_ones((len(found), targets.shape[1]))])

    def on(self, device: torch.device) -> WithBackground:
        """The speech on the device, if it has room for it."""
        return replace(self, speech=self.speech.on(device))


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


def ahead(make: Callable[[Item], Made], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Made]:
    """`make` of every item, in order, up to `workers` of them ahead of what is asked for; errors where they belong."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody asks for the rest
            for future in waiting:
                future.cancel()


def run_ahead(items: Iterable[Made]) -> Iterator[Made]:
    """The items, none of them None, of an iterator that one thread runs up to two steps ahead."""
    made = ahead(lambda iterator: next(iterator, None), repeat(iter(items)), workers=1)
    return takewhile(lambda item: item is not None, made)  # type: ignore[return-value]
