"""Features of clips: computed batch by batch, and those of a whole corpus on disk, shared by splits, seeds and folds.

On disk they come in versions: number 0 is the clean clip as it is served, 1, 2, … are augmented ones that depend on
the recording and the number alone, not on any seed. Which of them are trained on is up to the split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.clips import ClipRule, Waveform
from training.config import AugmentConfig, to_dict
from training.data.augment import fresh_version
from training.data.corpus import Corpus
from training.files import write_once

FORMAT = 2
"""Raised when a front-end or the augmentation changes what it computes, so that older caches are not read."""
BATCH, READERS = 32, 4
"""Clips encoded at a time; threads that decode them (libsndfile and soxr release the GIL)."""
Item, Read = TypeVar("Item"), TypeVar("Read")


class Encoding(Protocol):
    """A branch, as far as its features go."""

    def features(self, waveform: Tensor) -> Tensor:
        """(B, 144000) float32 → (B, …) float32: all that no gradient reaches."""
        ...

    def features_settings(self) -> dict[str, Any]:
        """The settings that decide `features`, as JSON types."""
        ...

    def features_state(self) -> dict[str, Tensor]:
        """The tensors that decide `features`, beside those settings."""
        ...


def read_all(read: Callable[[Item], Read], items: Sequence[Item]) -> Iterator[Read]:
    """`read` of every item in order, a batch at a time by several threads."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(items), BATCH):
            yield from list(readers.map(read, items[start : start + BATCH]))


def encode_batches(branch: Any, waveforms: Iterable[Waveform], device: torch.device) -> Iterator[Tensor]:
    """Features (b, …) float32, on the CPU, of waveforms (144000,) each, by `branch.features` in evaluation mode."""
    branch.eval()
    remaining = iter(waveforms)
    while batch := list(islice(remaining, BATCH)):
        with torch.no_grad():
            features = branch.features(torch.from_numpy(np.stack(batch)).to(device)).float().cpu()
        yield features


def encode(branch: Any, waveforms: Iterable[Waveform], device: torch.device) -> Tensor:
    """Features (N, …) float32, on the CPU, of waveforms (144000,) each."""
    return torch.cat(list(encode_batches(branch, waveforms, device)))


@dataclass(frozen=True)
class FeatureCache:
    """Versions of every recording's features in `root`, computed where they are not there yet."""

    root: Path
    corpus: Corpus
    rule: ClipRule
    augment: AugmentConfig
    device: torch.device

    def versions(self, branch: Any, numbers: range) -> list[np.ndarray]:
        """Memory-mapped features (recordings of the corpus, …) float32, one array per version."""
        state = hashlib.sha256()
        for name, tensor in sorted(branch.features_state().items()):
            state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return [self._version(branch, state.hexdigest(), number) for number in numbers]

    def _version(self, branch: Any, state: str, number: int) -> np.ndarray:
        path = self.root / f"{self._key(branch, state, number)}.npy"
        write_once(path, lambda new: self._compute(branch, number, new))
        return np.load(path, mmap_mode="r")

    def _key(self, branch: Any, state: str, number: int) -> str:
        content = {
            "format": FORMAT,
            "branch": [type(branch).__name__, branch.features_settings(), state],
            "clip": to_dict(self.rule),
            "augment": [number, _waveform_part(self.augment)] if number else None,
            "files": self._recordings,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @cached_property
    def _recordings(self) -> list[list[str]]:
        """Every recording's name and content: another recording under an old name has other features."""

        def content(index: int) -> str:
            path = self.corpus.path(index)
            found = path.stat()
            return _digest(path, found.st_size, found.st_mtime_ns)

        digests = read_all(content, range(len(self.corpus)))
        return [[e.file, digest] for e, digest in zip(self.corpus.examples, digests, strict=True)]

    def _compute(self, branch: Any, number: int, path: Path) -> None:
        waveforms = read_all(partial(self._waveform, number), range(len(self.corpus)))
        features, done = None, 0
        for batch in encode_batches(branch, waveforms, self.device):
            if features is None:
                features = np.lib.format.open_memmap(path, "w+", np.float32, (len(self.corpus), *batch.shape[1:]))
            features[done : done + len(batch)] = batch.numpy()
            done += len(batch)
        if features is not None:
            features.flush()

    def _waveform(self, number: int, index: int) -> Waveform:
        path = self.corpus.path(index)
        if not number:
            return read_clip(path, self.rule).waveform
        recording = read_recording(path, self.rule.sample_rate)
        return fresh_version(recording, self.rule, self.augment, np.random.default_rng((index, number)))


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, read once per process and version of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _waveform_part(augment: AugmentConfig) -> dict[str, Any]:
    """The settings that change a waveform; masks are laid on features afterwards."""
    return {k: v for k, v in to_dict(augment).items() if k not in ("versions", "time_mask", "band_mask")}
