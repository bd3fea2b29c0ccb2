"""Recordings on their way to the actors: numbered, a few together, by name and never by content."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.recordings.sources import Source

PARCEL = 16
"""Recordings of a parcel: a task is one parcel or several."""
LARGEST_TASK = 32
"""Parcels of a task at most: 512 clips outlast what a task costs, and are what a lost machine was at."""
TASKS_AN_ACTOR = 4
"""At least so many, so that the slowest actor holds the others up for little."""
SCHEMA = pa.schema([("first", pa.int64()), ("sources", pa.binary())])
"""`first`: number of the parcel's first recording in the run; `sources`: the pickled list of its `Source`s."""


class Parcels:
    """The recordings of a run, which are numbered in their order, packed."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._packed: list[bytes] = []
        self._rows = array("q")
        self.count = 0
        iterator = iter(sources)
        while parcel := list(islice(iterator, PARCEL)):
            self._packed.append(pickle.dumps(parcel, pickle.HIGHEST_PROTOCOL))
            self._rows.extend(source.row for source in parcel)
            self.count += len(parcel)

    def __getitem__(self, number: int) -> Source:
        """The recording of that number."""
        sources: list[Source] = pickle.loads(self._packed[number // PARCEL])
        return sources[number % PARCEL]

    def rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which rows of a table of recordings the recordings of those numbers are."""
        return np.array(self._rows)[numbers]

    def tasks(self, actors: int, *, long: bool) -> list[pa.Table]:
        """All recordings as tables of `SCHEMA`, one a task.

        Args:
            actors: that will share them.
            long: whether a recording has many rows: then a task is one parcel.
        """
        size = 1 if long else min(max(len(self._packed) // (TASKS_AN_ACTOR * actors), 1), LARGEST_TASK)
        firsts = range(0, self.count, PARCEL)
        return [
            _table(firsts[begin : begin + size], self._packed[begin : begin + size])
            for begin in range(0, len(self._packed), size)
        ]

    def alone(self, numbers: Iterable[int]) -> list[pa.Table]:
        """Those recordings, each a task of its own."""
        return [_table([number], [pickle.dumps([self[number]], pickle.HIGHEST_PROTOCOL)]) for number in numbers]


def unpack(task: pa.Table) -> Iterator[tuple[int, Source]]:
    """The numbered recordings of a task."""
    for first, packed in zip(task["first"].to_pylist(), task["sources"].to_pylist(), strict=True):
        # Made by the driver of this run; Ray itself ships code the same way.
        yield from enumerate(pickle.loads(packed), first)


def _table(firsts: Sequence[int], packed: Sequence[bytes]) -> pa.Table:
    return pa.table({"first": list(firsts), "sources": list(packed)}, SCHEMA)
