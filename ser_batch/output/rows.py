"""The rows of an output as they are read back: counted, and found again by the recording that they are about.

An index of millions of rows takes 64 bytes per recording.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.output.parquet import BATCH_ROWS, batches
from ser_batch.output.schema import VERSION
from ser_batch.output.stores import Stored

ERRORS = 10
"""Failures whose reason is kept; the table has them all."""
COLUMNS = ("file", "label", "start", "end", "status", "error", "bandwidth", "clipped")
"""What is counted of a row; an output of an earlier version lacks the last two."""
CLIPPED = 1e-3
"""Share of samples at full scale from which a row counts as clipped; see `ser_batch.audio.measure.clipped`."""
OPEN = b"ser_batch.open"
"""Key in a part's metadata: the rows of its last recording go on in the next part."""


@dataclass
class Counts:
    """Rows by status and label, seconds of sound, the first errors."""

    narrow_below: float = 0.0
    """Hz below which the bandwidth of a row counts as narrow."""
    narrow: int = 0
    """Rows with a prediction whose bandwidth is narrow."""
    clipped: int = 0
    """Rows with a prediction that are clipped."""
    confident_from: float | None = None
    """Score from which on a row counts as confident; None: none does."""
    confident: int = 0
    """Rows whose score is that or more."""
    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Of sound in the rows that are no errors."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of the first failures."""

    def add(self, rows: Any, *, sign: int = 1) -> list[tuple[str, str]]:
        """Count rows, or take them off again.

        Args:
            rows: pyarrow Table or RecordBatch with the columns `COLUMNS` and `score`; others are not looked at.
            sign: 1 or -1.

        Returns:
            (file, reason) of the rows with an error.
        """
        columns = {name: rows.column(name).to_pylist() for name in COLUMNS if name in rows.schema.names}
        for counter, name in ((self.statuses, "status"), (self.labels, "label")):
            for value in columns[name]:
                if value is not None:
                    counter[value] += sign
        for start, end in zip(columns["start"], columns["end"], strict=True):
            if start is not None:
                self.seconds += sign * (end - start)
        for status, hertz in zip(columns["status"], columns.get("bandwidth", ()), strict=False):
            self.narrow += sign * (status == "ok" and hertz is not None and hertz < self.narrow_below)
        for status, share in zip(columns["status"], columns.get("clipped", ()), strict=False):
            self.clipped += sign * (status == "ok" and share is not None and share >= CLIPPED)
        if self.confident_from is not None:
            scores = rows.column("score").to_pylist()
            self.confident += sign * sum(score is not None and score >= self.confident_from for score in scores)
        failures = [pair for pair in zip(columns["file"], columns["error"], strict=True) if pair[1] is not None]
        if sign > 0:
            self.errors.extend(failures[: max(0, ERRORS - len(self.errors))])
        else:
            self.errors = [pair for pair in self.errors if pair not in failures]
        return failures

    def clear(self) -> None:
        """Begin again."""
        self.statuses.clear()
        self.labels.clear()
        self.errors.clear()
        self.seconds = 0.0
        self.narrow = self.clipped = self.confident = 0


class Run(NamedTuple):
    """Consecutive rows about one recording, made by one reading of it."""

    name: str
    row: int
    """The first of its rows, counted over all files."""
    rows: int
    version: tuple[int, int]
    """Size and mtime (ns) of the recording then."""
    failed: bool
    given: int = 0
    """Digest of the columns that were handed through; see `digests`."""


def digests(columns: pa.Table) -> Iterator[int]:
    """A number for each row that changes with what its columns hold."""
    for start in range(0, len(columns), BATCH_ROWS):
        rows = zip(*(_values(column.slice(start, BATCH_ROWS)) for column in columns.columns), strict=True)
        for row in rows:
            digest = blake2b(repr(row).encode("utf-8", "backslashreplace"), digest_size=8).digest()
            yield int.from_bytes(digest, "little")


def _values(column: Any) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_date64(kind):
        return _values(column.cast(pa.date32() if pa.types.is_date64(kind) else kind.value_type))
    # Parquet has no seconds, and Python no nanoseconds.
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
    elif pa.types.is_duration(kind):
        column = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
    elif pa.types.is_time(kind):
        column = column.cast(pa.time64("us"), safe=False).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def runs(
    files: Sequence[Stored],
    key: str,
    *,
    count: Callable[[pa.RecordBatch], object] | None = None,
    given: Sequence[str] = (),
) -> Iterator[Run]:
    """The runs of rows in `files`, in order.

    Args:
        key: column that names the recording.
        count: is given the rows, with the columns of `Counts`, as they go by.
        given: columns that were handed through.
    """
    row = first = 0
    name, version, failed, handed = "", (0, 0), False, 0
    last_file: Stored | None = None
    columns = [key, *VERSION, "status"]
    for file, batch in batches(files, list(dict.fromkeys([*columns, *given, *((*COLUMNS, "score") if count else ())]))):
        if count is not None:
            count(batch)
        values = [batch.column(column).to_pylist() for column in columns]
        digest = digests(pa.Table.from_batches([batch]).select(list(given))) if given else repeat(0, len(batch))
        for this, size, mtime, status, others in zip(*values, digest, strict=True):
            if not (this == name and (file is last_file or (last_file is not None and is_open(last_file)))):
                if row > first:
                    yield Run(name, first, row - first, version, failed, handed)
                name, first, version, failed, handed = this, row, (size, mtime), False, others
            failed = failed or status == "error"
            last_file = file
            row += 1
    if row > first:
        yield Run(name, first, row - first, version, failed, handed)


def is_open(file: Stored) -> bool:
    """Whether the rows of the file's last recording go on in the next part."""
    return OPEN in (pq.read_metadata(file.source()).metadata or {})


@dataclass(frozen=True)
class Found:
    """The latest rows about one recording."""

    number: int
    """Of the run, in the order written."""
    row: int
    rows: int
    version: tuple[int, int]
    failed: bool
    given: int = 0
    """Digest of the columns that were handed through."""


class RowIndex:
    """The latest run of each recording; recordings are known by 128 bits of a hash of their names."""

    def __init__(self, found: Iterable[Run] = ()) -> None:
        high, low, rows, sizes, times = array("Q"), array("Q"), array("q"), array("q"), array("q")
        counts, failed, given = array("q"), array("b"), array("Q")
        for run in found:
            one, two = _digest(run.name)
            high.append(one)
            low.append(two)
            rows.append(run.row)
            counts.append(run.rows)
            sizes.append(run.version[0])
            times.append(run.version[1])
            failed.append(run.failed)
            if run.given or given:  # of recordings without columns of their own none is kept
                given.extend(array("Q", bytes(8 * (len(high) - 1 - len(given)))))
                given.append(run.given)
        columns = (low, rows, counts, sizes, times, failed, given)
        # In place: copies would double what a resumed run needs beyond an undisturbed one.
        self._low, self._row, self._rows, self._size, self._time, self._failed, self._given = map(_in_place, columns)
        key = _in_place(high)
        # Stable: among equal hashes the latest run stays the last.
        self._order = np.argsort(key, kind="stable")
        self._high = key[self._order]

    def __len__(self) -> int:
        return len(self._high)

    def find(self, name: str) -> Found | None:
        """The latest rows about the recording `name`."""
        high, low = _digest(name)
        place = int(np.searchsorted(self._high, np.uint64(high), side="right")) - 1
        while place >= 0 and int(self._high[place]) == high:
            run = int(self._order[place])
            if int(self._low[run]) == low:
                version = int(self._size[run]), int(self._time[run])
                rows = int(self._row[run]), int(self._rows[run])
                given = int(self._given[run]) if len(self._given) else 0
                return Found(run, *rows, version, bool(self._failed[run]), given)
            place -= 1
        return None

    def latest(self) -> np.ndarray:
        """(n,) bool: whether each run, in the order written, is the latest of its recording."""
        low = self._low[self._order]
        # Sorted by both halves, stably, the last of each group is the latest.
        both = self._order[np.lexsort((np.arange(len(low)), low, self._high))]
        last = np.ones(len(low), dtype=bool)
        high = np.empty_like(self._high)
        high[self._order] = self._high
        last[:-1] = (high[both][1:] != high[both][:-1]) | (self._low[both][1:] != self._low[both][:-1])
        result = np.empty_like(last)
        result[both] = last
        return result

    def spans(self) -> np.ndarray:
        """(n, 2) int64: first row and number of rows of each run, in the order written."""
        return np.stack([self._row, self._rows], axis=1)


def _in_place(column: array[int]) -> np.ndarray:
    return np.frombuffer(column, dtype=column.typecode) if column else np.empty(0, column.typecode)


def _digest(name: str) -> tuple[int, int]:
    digest = blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
