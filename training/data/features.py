"""Features of clips: computed batch by batch, and those of a whole corpus on disk, shared by splits, seeds and folds.

On disk they come in versions: number 0 is the clean clip as it is served, 1, 2, … are augmented ones that depend on
the recording's content and the number alone, not on any seed. Which of them are trained on is up to the split.
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

from ser_batch.bundle.files import sha256_of
from ser_batch.clips import ClipRule, Waveform
from ser_batch.files import write_json
from training.config import AugmentConfig, to_dict
from training.data.augment import fresh_version
from training.data.corpus import Corpus
from training.files import locked, read_json

FORMAT = 3
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
    """Features (b, …), on the CPU, of waveforms (144000,) each, by `branch.features` in evaluation mode."""
    branch.eval()
    remaining = iter(waveforms)
    while batch := list(islice(remaining, BATCH)):
        with torch.no_grad():
            features = branch.features(torch.from_numpy(np.stack(batch)).to(device)).cpu()
        yield features


def encode(branch: Any, waveforms: Iterable[Waveform], device: torch.device) -> Tensor:
    """Features (N, …) float32, on the CPU, of waveforms (144000,) each."""
    return torch.cat(list(encode_batches(branch, waveforms, device)))


class Features(Sequence[np.ndarray]):
    """One version of a corpus' features, a row (…) for each recording, mapped from the shards that hold them."""

    def __init__(self, shards: Sequence[np.ndarray], places: np.ndarray) -> None:
        """`places` (recordings, 2): the number of a recording's shard, and its row there."""
        self.shards, self.places = shards, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        """The row (…) of one recording; the rows (n, …) of a list of them."""
        if isinstance(index, int | np.integer):
            shard, row = self.places[index]
            return self.shards[shard][row]
        return np.stack([self.shards[shard][row] for shard, row in self.places[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype)


@dataclass(frozen=True)
class FeatureCache:
    """Versions of every recording's features in `root`, computed where they are not there yet.

    A folder holds one version by one front-end. Its shards hold the recordings, by content, that were new when each
    was made: a recording more costs one recording, in whichever corpora it is.
    """

    root: Path
    corpus: Corpus
    rule: ClipRule
    augment: AugmentConfig
    device: torch.device
    rows: Sequence[int] | None = None
    """Of the corpus' recordings, those that are wanted; None: all."""

    def versions(self, branch: Any, numbers: range) -> list[Features]:
        """Memory-mapped features of the recordings, in the order of `rows`, one `Features` per version."""
        state = hashlib.sha256()
        for name, tensor in sorted(branch.features_state().items()):
            state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return [self._version(branch, state.hexdigest(), number) for number in numbers]

    def _version(self, branch: Any, state: str, number: int) -> Features:
        folder = self.root / self._key(branch, state, number)
        with locked(folder):
            held = _shards(folder)
            absent = {name: i for i, name in enumerate(self._recordings) if name not in held}
            if absent:
                shard = folder / f"{hashlib.sha256(''.join(absent).encode()).hexdigest()[:24]}.npy"
                self._compute(branch, number, list(absent.values()), shard)
                held = _shards(folder)
        paths = sorted({path for path, _ in held.values()})
        order = {path: i for i, path in enumerate(paths)}
        places = np.array([(order[held[name][0]], held[name][1]) for name in self._recordings])
        return Features([np.load(path, mmap_mode="r") for path in paths], places)

    def _key(self, branch: Any, state: str, number: int) -> str:
        content = {
            "format": FORMAT,
            "branch": [type(branch).__name__, branch.features_settings(), state],
            "clip": to_dict(self.rule),
            "augment": [number, _waveform_part(self.augment)] if number else None,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @cached_property
    def _recordings(self) -> list[str]:
        """What each clip is cut from, by content: another recording under an old name has other features."""

        def content(index: int) -> str:
            path, start = self.corpus.path(index), self.corpus.examples[index].start
            found = path.stat()
            digest = _digest(path, found.st_size, found.st_mtime_ns)
            return digest if start is None else f"{digest}@{start!r}"

        return list(read_all(content, self._indices))

    @property
    def _indices(self) -> Sequence[int]:
        return range(len(self.corpus)) if self.rows is None else self.rows

    def _compute(self, branch: Any, number: int, places: list[int], path: Path) -> None:
        """Write the features of the recordings at `places`, then the list of what they are, which makes them count."""
        waveforms = read_all(partial(self._waveform, number), places)
        features, done = None, 0
        for batch in encode_batches(branch, waveforms, self.device):
            if features is None:
                features = np.lib.format.open_memmap(path, "w+", batch.numpy().dtype, (len(places), *batch.shape[1:]))
            features[done : done + len(batch)] = batch.numpy()
            done += len(batch)
        assert features is not None
        features.flush()
        write_json(path.with_suffix(".json"), [self._recordings[place] for place in places])

    def _waveform(self, number: int, place: int) -> Waveform:
        index = self._indices[place]
        if not number:
            return self.corpus.clip(index, self.rule)
        recording = self.corpus.recording(index, self.rule.sample_rate)
        seed = int(self._recordings[place][:16], 16)
        return fresh_version(recording, self.rule, self.augment, np.random.default_rng((seed, number)))


def _shards(folder: Path) -> dict[str, tuple[Path, int]]:
    """Recording → the shard that holds it, and its row there."""
    return {
        name: (listed.with_suffix(".npy"), row)
        for listed in sorted(folder.glob("*.json"))
        for row, name in enumerate(read_json(listed))
    }


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, read once per process and version of the file."""
    return sha256_of(path)


def _waveform_part(augment: AugmentConfig) -> dict[str, Any]:
    """The settings that change a waveform; masks are laid on features afterwards."""
    return {k: v for k, v in to_dict(augment).items() if k not in ("versions", "time_mask", "band_mask", "background")}
