"""What every stage of one run works with: configuration, corpus, split, folder, and the clips they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ser_batch.audio.recording import read_clip, read_recording
from ser_batch.clips import Waveform
from ser_batch.errors import TrainingError
from training import runs
from training.config import RunConfig
from training.data.augment import noisy_copies
from training.data.corpus import Corpus
from training.data.feature_cache import FeatureCache
from training.data.splits import Split, splits_of
from training.loop import Progress

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
    cache: Path | None = None
    """Folder of feature caches shared with other runs; the run's own where there is none."""

    @property
    def cached_in(self) -> Path | None:
        """Where features are cached: in the folder given, or the run's own, where the augmentation draws them once."""
        return self.cache or (self.folder / "features" if self.config.augment.versions else None)

    @cached_property
    def features(self) -> FeatureCache:
        """Versions of the corpus' features, where they are cached."""
        assert self.cached_in
        return FeatureCache(self.cached_in, self.corpus, self.config.clip, self.config.augment, self.device)

    @property
    def fitted_parts(self) -> tuple[str, ...]:
        """The parts whose clips the branches end up trained on."""
        return fitted_parts(self.config)

    def rows(self, *parts: str) -> list[int]:
        """Indices into the corpus of the parts' clips, one part after the other."""
        return [i for part in parts for i in getattr(self.split, part)]

    def targets(self, *parts: str) -> Tensor:
        """Class indices (n,) of the parts' clips."""
        return torch.from_numpy(self.corpus.targets[self.rows(*parts)])

    def clips(self, *parts: str) -> list[Waveform]:
        """The parts' clips (144000,) each, exactly as they are served."""
        return list(self._read(parts, lambda path: read_clip(path, self.config.clip).waveform))

    def recordings(self, *parts: str) -> list[Waveform]:
        """The parts' whole recordings, mono at the clip rule's rate."""
        return list(self._read(parts, lambda path: read_recording(path, self.config.clip.sample_rate).samples))

    def _read(self, parts: tuple[str, ...], read: Any) -> Iterable[Waveform]:
        paths = [self.corpus.path(i) for i in self.rows(*parts)]
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(read, paths))

    def copies(self, *parts: str) -> Iterator[Waveform]:
        """The fixed training versions of the parts' clips, a clip's versions one after the other."""
        for index, clip in zip(self.rows(*parts), self.clips(*parts), strict=True):
            yield from noisy_copies(clip, self.config.augment, (self.config.seed, index))


def fitted_parts(config: RunConfig) -> tuple[str, ...]:
    """The parts of a split whose clips a run's branches end up trained on."""
    return ("train", "validation") if config.refit else ("train",)


def prepare(
    config: RunConfig,
    corpus: Corpus,
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Material:
    """Check that data, split, configuration and folder fit together, and begin the run's folder."""
    corpus.check_files()
    splits = splits_of(config.protocol, corpus, config.seed)
    if not 0 <= config.fold < len(splits):
        raise TrainingError(
            f"protocol {config.protocol} has no such fold", got=config.fold, expected=f"0 … {len(splits) - 1}"
        )
    split, found = splits[config.fold], _device(device)
    runs.start(folder, config, corpus, split)
    return Material(config, corpus, split, folder, found, compiled, progress, cache)


def _device(name: str) -> torch.device:
    """The device that is called so; TrainingError for one that this machine has not."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (name not in there and not (name == "cuda" and len(there) > 1)):
        raise TrainingError("there is no such device here", got=name, expected=f"one of {', '.join(there)}")
    return device
