"""Tables as they come back from the actors, made into rows of the output: each recording's once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.decode.source import failure, source_version
from ser_batch.distributed.actor import LOST, NUMBER, SPENT, STOPPED
from ser_batch.distributed.parcels import Parcels
from ser_batch.engines.scorer import Scores
from ser_batch.errors import EngineError
from ser_batch.output.parquet import take
from ser_batch.output.predictions import record_batch
from ser_batch.run.keeping import Made
from ser_batch.run.pipeline import made_of


class Answers:
    """What has come back of a run's recordings.

    Args:
        table: schema of the predictions; its last columns are those of `carried`.
        carried: columns handed through, a row for each `Source.row`.
    """

    def __init__(self, parcels: Parcels, table: pa.Schema, carried: pa.Table | None) -> None:
        self._parcels, self._table, self._carried = parcels, table, carried
        self._arrived = np.zeros(parcels.count, dtype=bool)

    def missing(self) -> npt.NDArray[np.int64]:
        """Numbers of the recordings without rows."""
        return np.flatnonzero(~self._arrived)

    def take(self, answer: pa.Table) -> Made | None:
        """The rows of an answer (see `actor.TaskScorer`); None: it has none that have not come before.

        Raises:
            EngineError: the actor says that it can make none.
        """
        if STOPPED in answer.column_names:
            raise EngineError("an actor had to stop", got=answer[STOPPED][0].as_py())
        if LOST in answer.column_names:
            return None
        answer = answer.combine_chunks()
        fresh = np.flatnonzero(~self._arrived[answer[NUMBER].to_numpy()])
        if not len(fresh):
            return None
        if len(fresh) < len(answer):
            answer = take(answer, fresh)
        numbers = answer[NUMBER].to_numpy()
        self._arrived[numbers] = True
        names = zip(answer["file"].to_pylist(), answer["error"].to_pylist(), strict=True)
        return Made(
            self._batch(answer, numbers),
            files=len(np.unique(numbers)),
            failures=[(file, error) for file, error in names if error is not None],
            heard=float(np.nansum(_floats(answer["end"]) - _floats(answer["start"]))),
        )

    def give_up(self, number: int, labels: tuple[str, ...], branches: tuple[str, ...]) -> Made:
        """The row of a recording that took down every process that met it."""
        source = self._parcels[number]
        row = failure(source, source_version(source), "every process that scored it was lost")
        none = np.empty((0, len(labels)), np.float32)
        self._arrived[number] = True
        batch = record_batch(self._table, labels, [row], Scores(none, dict.fromkeys(branches, none)), self._carried)
        return made_of(batch, [row])

    def _batch(self, answer: pa.Table, numbers: npt.NDArray[np.int64]) -> Any:
        own = [name for name in self._table.names if name in answer.column_names]
        columns = answer.select(own).columns
        if self._carried is not None:
            columns += take(self._carried, self._parcels.rows(numbers)).combine_chunks().columns
        table = pa.Table.from_arrays(columns, names=self._table.names).cast(self._table)
        return table.combine_chunks().to_batches()[0]


def spent(answer: pa.Table) -> dict[str, float]:
    """Stage -> seconds that the task of an answer waited for it."""
    return {stage: answer[name][0].as_py() for stage, name in SPENT.items() if name in answer.column_names}


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in column.to_pylist()])
