"""Recordings on their way to the actors and their rows on the way back: by number and name, never by content."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.arrow import take
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.scorer import Scores
from ser_batch.errors import EngineError
from ser_batch.output.schema import handed_through, record_batch
from ser_batch.pipeline.executor import Scored
from ser_batch.recordings.recording import Recording, current_version, failed

CHUNK = 16
"""Recordings that are packed together: a task is one chunk or several."""
LARGEST_TASK = 32
"""Chunks of a task at most: 512 clips take far longer than handing a task over, and are what a lost machine costs."""
TASKS_PER_ACTOR = 4
"""At least so many, so that the slowest actor holds the others up for little."""
SCHEMA = pa.schema([("first", pa.int64()), ("recordings", pa.binary())])
"""`first`: number of the chunk's first recording in the run; `recordings`: the pickled list of its `Recording`s."""
NUMBER = "ray_number"
"""Column of a result: the number of the row's recording in the run."""
SPENT = {"decode": "ray_decode", "engine": "ray_engine"}
"""Stage -> column, the same in every row: seconds that the task waited for it."""
STOPPED = "ray_stopped"
"""The only column of a result that says why there can be none."""
LOST = "ray_lost"
"""The only column of a result that gives a task up, since process after process was lost with it."""


class Tasks:
    """The recordings of a run, which are numbered in their order, in tasks."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._packed: list[bytes] = []
        self._rows = array("q")
        self.count = 0
        iterator = iter(recordings)
        while chunk := list(islice(iterator, CHUNK)):
            self._packed.append(pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL))
            self._rows.extend(recording.row for recording in chunk)
            self.count += len(chunk)

    def __getitem__(self, number: int) -> Recording:
        """The recording of that number."""
        recordings: list[Recording] = pickle.loads(self._packed[number // CHUNK])
        return recordings[number % CHUNK]

    def rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which rows of the run's recordings those of these numbers are."""
        return np.array(self._rows)[numbers]

    def divided(self, actors: int, *, long: bool) -> list[pa.Table]:
        """All recordings as tables of `SCHEMA`, one per task.

        Args:
            actors: that will share them.
            long: whether a recording has many rows: then a task is one chunk.
        """
        size = 1 if long else min(max(len(self._packed) // (TASKS_PER_ACTOR * actors), 1), LARGEST_TASK)
        firsts = range(0, self.count, CHUNK)
        return [
            _table(firsts[begin : begin + size], self._packed[begin : begin + size])
            for begin in range(0, len(self._packed), size)
        ]

    def alone(self, numbers: Iterable[int]) -> list[pa.Table]:
        """Those recordings, each a task of its own."""
        return [_table([number], [pickle.dumps([self[number]], pickle.HIGHEST_PROTOCOL)]) for number in numbers]


def unpack(task: pa.Table) -> Iterator[tuple[int, Recording]]:
    """The numbered recordings of a task."""
    for first, packed in zip(task["first"].to_pylist(), task["recordings"].to_pylist(), strict=True):
        # Made by the driver of this run; Ray itself ships code the same way.
        yield from enumerate(pickle.loads(packed), first)


def _table(firsts: Sequence[int], packed: Sequence[bytes]) -> pa.Table:
    return pa.table({"first": list(firsts), "recordings": list(packed)}, SCHEMA)


class Results:
    """What has come back of a run's recordings; each of them counts once.

    Args:
        table: schema of the predictions; its last columns are those of `extra`.
        extra: columns handed through, a row for each `Recording.row`.
    """

    def __init__(self, tasks: Tasks, table: pa.Schema, extra: pa.Table | None) -> None:
        self._tasks, self._table, self._extra = tasks, table, extra
        self._arrived = np.zeros(tasks.count, dtype=bool)

    def missing(self) -> npt.NDArray[np.int64]:
        """Numbers of the recordings without rows."""
        return np.flatnonzero(~self._arrived)

    def take(self, result: pa.Table) -> Scored | None:
        """The rows of a result (see `actor.TaskScorer`); None: it has none that have not come before.

        Raises:
            EngineError: the actor says that it can make none.
        """
        if STOPPED in result.column_names:
            raise EngineError("an actor had to stop", got=result[STOPPED][0].as_py())
        if LOST in result.column_names:
            return None
        result = result.combine_chunks()
        fresh = np.flatnonzero(~self._arrived[result[NUMBER].to_numpy()])
        if not len(fresh):
            return None
        if len(fresh) < len(result):
            result = take(result, fresh)
        numbers = result[NUMBER].to_numpy()
        self._arrived[numbers] = True
        return Scored(self._batch(result, numbers), files=len(np.unique(numbers)))

    def give_up(self, number: int, bundle: Bundle) -> Scored:
        """The row of a recording that took down every process that met it."""
        recording = self._tasks[number]
        segment = failed(recording, current_version(recording), "every process that scored it was lost")
        none, of_branch = (np.empty((0, len(each)), np.float32) for each in (bundle.labels, bundle.branch_labels))
        scores = Scores(none, dict.fromkeys((branch.name for branch in bundle.manifest.branches), of_branch))
        self._arrived[number] = True
        batch = record_batch(
            self._table, bundle.labels, [segment], scores, self._extra, branch_labels=bundle.branch_labels
        )
        return Scored(batch, files=1)

    def _batch(self, result: pa.Table, numbers: npt.NDArray[np.int64]) -> Any:
        handed = handed_through(self._table.names)
        own = self._table.names[: len(self._table.names) - len(handed)]
        columns = result.select(own).columns
        if self._extra is not None:
            columns += take(self._extra, self._tasks.rows(numbers)).combine_chunks().columns
        table = pa.Table.from_arrays(columns, names=self._table.names).cast(self._table)
        return table.combine_chunks().to_batches()[0]


def spent(result: pa.Table) -> dict[str, float]:
    """Stage -> seconds that the task of a result waited for it."""
    return {stage: result[name][0].as_py() for stage, name in SPENT.items() if name in result.column_names}
