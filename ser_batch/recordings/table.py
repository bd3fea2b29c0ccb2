"""What is to be scored, as one Arrow table: a row is a recording, its name, where it is, and maybe a stretch of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.arrow import numbers, strings, take
from ser_batch.errors import InputError
from ser_batch.recordings.embedded import EmbeddedAudio
from ser_batch.recordings.recording import Recording
from ser_batch.storage.urls import join

BATCH = 512
"""Rows held as Python objects at a time."""


class Keys:
    """What each recording of a table is known by: the first of the columns that says something."""

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        self._columns = columns

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._columns[0]), BATCH):
            rows = zip(*(column.slice(start, BATCH).to_pylist() for column in self._columns), strict=True)
            yield from (next(filter(None, row), "") for row in rows)


class Recordings(Sequence[Recording]):
    """The recordings of a run, held as columns: a hundred thousand take their names and some 20 bytes each.

    Args:
        columns: `name` and `root` of each recording, and as needed `path` (where that is not the name seen from the
            root), `id`, `start` and `end` (seconds), `size` and `mtime_ns` (as a listing had them), `embedded` (the
            row among audio inside Parquet), `problem` (why it cannot be read; null: nothing is known against it).
        extra: columns that are handed through to the predictions, a row for each recording.
        embedded: the audio that Parquet files hold.
    """

    def __init__(
        self, columns: dict[str, pa.Array], extra: pa.Table | None = None, embedded: EmbeddedAudio | None = None
    ) -> None:
        own = pa.table(columns)
        extra_columns = [] if extra is None else extra.columns
        self._own = len(own.column_names)
        names = [*own.column_names, *([] if extra is None else extra.column_names)]
        # A single chunk, so that a row is found at once.
        table = pa.Table.from_arrays([*own.columns, *extra_columns], names=names)
        self.table = table if all(column.num_chunks == 1 for column in table.columns) else table.combine_chunks()
        self._embedded = embedded
        self.left_out: dict[str, int] = {}
        """Ending -> files of the folders searched that were not taken."""

    @classmethod
    def of(cls, recordings: Iterable[Recording]) -> Recordings:
        """The given recordings, which are files or objects, without extra columns."""
        held = list(recordings)
        columns = {
            "name": strings([each.name for each in held], kind=pa.large_string()),
            "root": roots(np.zeros(len(held)), [""]),
            "path": strings([os.fsencode(each.path) for each in held], kind=pa.large_binary()),
        }
        if any(each.id for each in held):
            columns["id"] = strings([each.id or None for each in held], kind=pa.large_string())
        if any(each.span for each in held):
            for index, name in enumerate(("start", "end")):
                spans = [np.nan if each.span is None else each.span[index] for each in held]
                columns[name] = numbers(spans, np.float64)
        if any(each.version for each in held):
            for index, name in enumerate(("size", "mtime_ns")):
                known = np.array([each.version is not None for each in held])
                columns[name] = numbers([each.version[index] for each in held if each.version], np.int64, known)
        if any(each.problem for each in held):
            columns["problem"] = strings([each.problem or None for each in held])
        return cls(columns)

    @property
    def key(self) -> str:
        """The column of the predictions that tells the recordings apart: `file`, or `id`."""
        return "id" if self._has("id") else "file"

    @property
    def extra(self) -> pa.Table | None:
        """The columns that are handed through to the predictions, a row for each recording; None: there are none."""
        more = list(range(self._own, self.table.num_columns))
        return self.table.select(more) if more else None

    def keys(self) -> Keys:
        """What each recording is known by, in order; it can be gone through more than once."""
        names = self.table.column_names[: self._own]
        return Keys([self.table.column(names.index(name)) for name in ("id", "name") if name in names])

    def content(self, recording: Recording) -> bytes | None:
        """The bytes of a recording that lies inside a Parquet file; None: it is a file of its own.

        Raises:
            AudioError: the row is null, or the file cannot be read any more.
            StoreError: the store that the file is in is away.
        """
        if self._embedded is None or recording.problem:
            return None
        return self._embedded.content(recording)

    def shard(self, part: int, count: int) -> Recordings:
        """The recordings whose names hash to one of `count` parts: what a part holds does not depend on the others.

        Raises:
            InputError: there is no such part, or nothing is in it.
        """
        if not 1 <= part <= count:
            raise InputError("there is no such shard", got=f"{part}/{count}", expected="1/N to N/N")
        chosen = [row for row, key in enumerate(self.keys()) if _digest(key) % count == part - 1]
        if not chosen:
            raise InputError("no recording falls to this shard", got=f"{part}/{count} of {len(self)} recordings")
        return self.select(chosen)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> Recordings: ...
    def __getitem__(self, index: int | slice) -> Recording | Recordings:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        row = range(len(self))[index]
        return next(self._rows(self.table.slice(row, 1), row))

    def __iter__(self) -> Iterator[Recording]:
        for start in range(0, len(self), BATCH):
            yield from self._rows(self.table.slice(start, BATCH), start)

    def _rows(self, table: pa.Table, first: int) -> Iterator[Recording]:
        own = [table.column(index) for index in range(self._own)]
        columns = {name: own[index].to_pylist() for index, name in enumerate(table.column_names[: self._own])}
        none = [None] * len(table)
        names = ("name", "root", "path", "id", "start", "end", "size", "mtime_ns", "embedded", "problem")
        rows = zip(*(columns.get(name, none) for name in names), strict=True)
        for row, (name, root, path, id_, start, end, size, mtime, embedded, problem) in enumerate(rows, first):
            where = join(_decoded(root), _native(name)) if path is None else _decoded(path)
            span = None if end is None or end != end else (start, end)
            version = None if size is None else (size, mtime)
            inside = -1 if embedded is None else embedded
            yield Recording(where, name, id_ or "", span, row, version, inside, problem or "")

    def paths_of(self, wanted: Iterable[str]) -> dict[str, str]:
        """Name -> path of the recordings of these names that are files of their own."""
        wanted, found = frozenset(wanted), dict[str, str]()
        names = self.table.column(self.table.column_names.index("name"))
        for start in range(0, len(self) if wanted else 0, BATCH):
            for row, name in enumerate(names.slice(start, BATCH).to_pylist(), start):
                if name in wanted and self[row].embedded < 0:
                    found[name] = self[row].path
        return found

    def with_extra(self, extra: pa.Table) -> Recordings:
        """The same recordings with other columns to hand through."""
        own = dict(zip(self.table.column_names, self.table.columns[: self._own], strict=False))
        changed = Recordings(own, extra if extra.num_columns else None, self._embedded)
        changed.left_out = self.left_out
        return changed

    def select(self, rows: Iterable[int]) -> Recordings:
        """The recordings of these rows, in this order."""
        chosen = take(self.table, rows)
        own = dict(zip(chosen.column_names, chosen.columns[: self._own], strict=False))
        more = list(range(self._own, chosen.num_columns))
        selected = Recordings(own, chosen.select(more) if more else None, self._embedded)
        selected.left_out = self.left_out
        return selected

    def _has(self, name: str) -> bool:
        return name in self.table.column_names[: self._own]


def roots(indices: npt.ArrayLike, folders: Sequence[str]) -> pa.Array:
    """The column `root`: each recording's folder or URL, by its number among `folders`."""
    words = strings([os.fsencode(folder) for folder in folders], kind=pa.large_binary())
    return pa.DictionaryArray.from_arrays(numbers(indices, np.int8 if len(folders) < 128 else np.int32), words)


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


def _decoded(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, bytes) else path


def _native(name: str) -> str:
    """A name as Python has it in file names: where the locale is ASCII, other characters are surrogates."""
    return name if sys.getfilesystemencoding() == "utf-8" else os.fsdecode(name.encode())
