"""A batch shared out to parallel streams on a CPU: each stream takes a few clips at a time, on threads of its own.

With every thread on one operator of the whole batch, threads wait for each other after each operator, and for the
decoders that share their cores; and what an operator hands to the next, 36 MB per tensor of the default bundle's
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

MICRO_BATCH = 2
"""Clips that a stream takes at a time, unless the runtime does better with more, and has at least."""

Context = TypeVar("Context")


@dataclass(frozen=True)
class Layout:
    """How an engine uses the cores."""

    streams: int
    threads: int
    """Of each stream."""


def layout(batch: int, threads: int | None) -> Layout:
    """As many streams as there are threads, and micro-batches in a usual batch of `batch` clips.

    Args:
        threads: CPU threads for all streams together; None: one per CPU.
    """
    total = threads or usable_cpus()
    streams = max(1, min(total, batch // MICRO_BATCH))
    return Layout(streams, total // streams)


class Streams(Generic[Context]):
    """Streams that run in parallel, each with a context (the runtime's own state) that no other uses meanwhile.

    Args:
        most: clips that a stream takes at a time.
    """

    def __init__(self, contexts: Sequence[Context], most: int = MICRO_BATCH) -> None:
        self._count, self._most = len(contexts), most
        self._free: SimpleQueue[Context] = SimpleQueue()
        for context in contexts:
            self._free.put(context)
        self._pool = ThreadPoolExecutor(self._count, "stream") if self._count > 1 else None

    def run(
        self, score: Callable[[Context, Waveform], dict[str, Probabilities]], waveform: Waveform
    ) -> dict[str, Probabilities]:
        """What `score` gives for (B, samples), B ≥ 1, in micro-batches; whatever it raises is raised."""

        def one(clips: Waveform) -> dict[str, Probabilities]:
            context = self._free.get()
            try:
                return score(context, clips)
            finally:
                self._free.put(context)

        if self._pool is None or len(waveform) == 1:
            return one(waveform)
        count = max(-(-len(waveform) // self._most), min(self._count, len(waveform)))
        found = list(self._pool.map(one, np.array_split(waveform, count)))
        return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}

    def close(self) -> None:
        """End the threads and release the contexts."""
        if self._pool is not None:
            self._pool.shutdown()
        self._free = SimpleQueue()
