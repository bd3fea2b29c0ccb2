"""A batch shared out to lanes: a few clips at a time, each on its own threads, side by side on a CPU.

With every thread on one operator of the whole batch, threads wait for each other after each operator, and for
the decoders that share their cores; and what an operator hands to the next, 36 MB a tensor of the default bundle's
spectrogram branch at batch 16, does not fit the caches. docs/benchmarks.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from ser_batch.bundle.fusion import Probabilities
from ser_batch.clips import Waveform
from ser_batch.machine import usable_cpus

PIECE = 2
"""Clips a lane takes at a time."""

Context = TypeVar("Context")


@dataclass(frozen=True)
class Layout:
    """How an engine uses the cores."""

    lanes: int
    threads: int
    """Of each lane."""


def layout(batch: int, threads: int | None) -> Layout:
    """As many lanes as there are threads and pieces of a usual batch of `batch` clips; None: a thread a CPU."""
    total = threads or usable_cpus()
    lanes = max(1, min(total, batch // PIECE))
    return Layout(lanes, total // lanes)


class Lanes(Generic[Context]):
    """Lanes that run side by side, each with a context that no other uses meanwhile (the runtime's own state)."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._count = len(contexts)
        self._free: SimpleQueue[Context] = SimpleQueue()
        for context in contexts:
            self._free.put(context)
        self._pool = ThreadPoolExecutor(self._count, "lane") if self._count > 1 else None

    def run(
        self, score: Callable[[Context, Waveform], dict[str, Probabilities]], waveform: Waveform
    ) -> dict[str, Probabilities]:
        """What `score` gives for (B, samples), B ≥ 1, taken in pieces; whatever it raises is raised."""

        def one(piece: Waveform) -> dict[str, Probabilities]:
            context = self._free.get()
            try:
                return score(context, piece)
            finally:
                self._free.put(context)

        if self._pool is None or len(waveform) == 1:
            return one(waveform)
        pieces = max(-(-len(waveform) // PIECE), min(self._count, len(waveform)))
        found = list(self._pool.map(one, np.array_split(waveform, pieces)))
        return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}

    def close(self) -> None:
        """End the threads and let go of the contexts."""
        if self._pool is not None:
            self._pool.shutdown()
        self._free = SimpleQueue()
