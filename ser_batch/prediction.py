"""What a model said: one `Prediction`, or many as `Predictions` over one Arrow table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import repeat
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.arrow import take
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.errors import InputError
from ser_batch.text import aligned, terminal_safe

if TYPE_CHECKING:
    import pandas
    import polars

NAMESPACE = b"ser_batch."
LIKELIEST = 3
"""Labels of the text of one prediction."""
SHOWN = 10
"""Rows of the text of many."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model said of one recording, or of one segment of it."""

    label: str | None
    """The likeliest label; None: it was not scored, and `status` says why."""
    score: float | None
    """The probability of `label`."""
    probabilities: dict[str, float]
    """Label -> probability, in the order of the model's labels; empty: it was not scored."""
    branches: dict[str, dict[str, float]]
    """Branch -> the same of that branch alone, in the order of the branches' labels."""
    status: str = "ok"
    """"ok", "silent", "short" or "error", as in the table that `ser-batch run` writes."""
    file: str | None = None
    """The recording; None: it was an array."""
    error: str | None = None
    start: float | None = None
    """Seconds of the recording where what was scored begins."""
    end: float | None = None
    duration: float | None = None
    """Seconds of the whole recording."""
    level: float | None = None
    """dBFS (RMS) of what was scored."""
    bandwidth: float | None = None
    """Hz up to which there is sound in what was scored."""
    clipped: float | None = None
    """Share of its samples that are at full scale or beyond."""
    channel: int | None = None
    """The one channel that was scored, from 1 on; None: the mix of all."""
    segments: int | None = None
    """How many clips the probabilities are the mean of."""
    embedding: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    """(D,) what the classifier of one branch sees, where it was asked for; None, too: it was not scored."""

    def __repr__(self) -> str:
        best = sorted(self.probabilities.items(), key=lambda each: -each[1])[:LIKELIEST]
        said = ", ".join(f"{label} {probability:.2f}" for label, probability in best) or self.error or self.status
        span = "" if self.start is None else f", {self.start:.2f} to {self.end:.2f} s"
        return f"<Prediction {said}{span}{f', {self.file}' if self.file else ''}>"


FACTS = (
    *("label", "score", "status", "error", "start", "end", "duration", "level", "bandwidth", "clipped", "channel"),
    "segments",
)
"""Fields that are columns of the table."""


class Predictions(Sequence[Prediction]):
    """Rows of predictions in the order of the recordings; a sequence of `Prediction` over an Arrow table.

    Args:
        table: as `ser-batch run` writes it (docs/predictions.md).
    """

    def __init__(self, table: pa.Table) -> None:
        metadata = table.schema.metadata or {}
        self.table = table
        self.labels: tuple[str, ...] = tuple(json.loads(metadata[NAMESPACE + b"labels"]))
        of_branches = metadata.get(NAMESPACE + b"branch_labels")
        self.branch_labels: tuple[str, ...] = self.labels if of_branches is None else tuple(json.loads(of_branches))
        branches: list[str] = json.loads(metadata[NAMESPACE + b"branches"])
        self.branches = tuple(name for name in branches if f"{name}_p_{self.branch_labels[0]}" in table.column_names)

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(N, labels) float32, NaN where a row was not scored."""
        columns = [self.table.column(f"p_{label}").to_numpy() for label in self.labels]
        stacked: npt.NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32, copy=False)
        return stacked

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """(N, D) float32, NaN where a row was not scored.

        Raises:
            InputError: the table holds none.
        """
        if EMBEDDING not in self.table.column_names:
            raise InputError(
                "these predictions hold no embeddings",
                remedy="Load a model that has them with ser_batch.load(…, embeddings=True), and score again.",
            )
        return _vectors(self.table.column(EMBEDDING))

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(file, reason) of every recording that could not be scored."""
        pairs = zip(self.table.column("file").to_pylist(), self.table.column("error").to_pylist(), strict=True)
        return [(file, error) for file, error in pairs if error is not None]

    def to_arrow(self) -> pa.Table:
        """The table: one row per recording, or per segment, with the columns of docs/predictions.md."""
        return self.table

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas DataFrame; InputError where pandas is not installed."""
        _need("pandas")
        return self.table.to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """The table as a Polars DataFrame; InputError where Polars is not installed."""
        _need("polars")
        import polars

        return polars.DataFrame(self.table)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return Predictions(take(self.table, range(*index.indices(len(self)))))
        row = range(len(self))[index]
        return next(self._rows(self.table.slice(row, 1)))

    def __iter__(self) -> Iterator[Prediction]:
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from self._rows(pa.Table.from_batches([batch]))

    def _rows(self, table: pa.Table) -> Iterator[Prediction]:
        vectors: Iterable[Any] = repeat(None)
        if EMBEDDING in table.column_names:
            # As Python's numbers they would take most of the time.
            vectors, table = _vectors(table.column(EMBEDDING)), table.drop_columns([EMBEDDING])
        for row, vector in zip(table.to_pylist(), vectors, strict=False):
            yield Prediction(
                **{name: row.get(name) for name in FACTS},
                file=row["file"] or None,
                probabilities=_scores(row, "", self.labels),
                branches={name: _scores(row, f"{name}_", self.branch_labels) for name in self.branches},
                embedding=vector if row["status"] == "ok" else None,
            )

    def __repr__(self) -> str:
        head = f"{len(self)} predictions, {len(self.failures)} of recordings that failed"
        rows = [
            (
                terminal_safe(each.file or ""),
                "" if each.start is None else f"{each.start:.1f} to {each.end:.1f}",
                each.label or each.status,
                "" if each.score is None else f"{each.score:.2f}",
            )
            for each in self[:SHOWN]
        ]
        more = [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        table = [aligned([("file", "seconds", "label", "score"), *rows])] if rows else []
        return "\n".join([head, *table, *more])


def _scores(row: dict[str, Any], prefix: str, labels: Sequence[str]) -> dict[str, float]:
    scores = {label: row[f"{prefix}p_{label}"] for label in labels}
    return {} if None in scores.values() else scores


def _vectors(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """A column of lists of D numbers as (N, D), NaN where a row has none."""
    found = np.full((len(column), column.type.list_size), np.nan, np.float32)
    held = np.array(column.is_valid().to_numpy(), dtype=bool)
    found[held] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, found.shape[1])
    return found


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise InputError(f"{package} is not installed", remedy=f"Install it: pip install {package}.")
