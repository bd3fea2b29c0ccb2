"""Tables of recordings: CSV, JSON lines, Parquet or a list of paths; or Parquet that holds the audio itself.

A row has `path` (relative to the table's own folder), and optionally `id`, `start` and `end` or `duration` in
seconds: that stretch of the file is then a recording of its own. In place of `path`, Parquet may have `audio`, a
struct of `bytes` and `path`, as Hugging Face's datasets do. All other columns are handed through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ser_batch.errors import InputError
from ser_batch.recordings.embedded import EmbeddedAudio, is_audio
from ser_batch.recordings.listing import Inputs
from ser_batch.recordings.sources import Source, Sources
from ser_batch.storage.objects import object_version, readable
from ser_batch.storage.urls import is_url, join, split
from ser_batch.text import printable

TIMES = ("start", "end", "duration")
TYPES = {**dict.fromkeys(("path", "file", "id", "label"), pa.string()), **dict.fromkeys(TIMES, pa.float64())}
"""Types that are not left to guessing: a label 01 stays what it is."""
NO_NUMBER = r"^[+-]?0\d|^[+-]?\d{16,}$"
"""What reads as a number and is a name: 007 would come back as 7, and of so many digits a double keeps some."""


def read_tables(paths: Sequence[str]) -> Inputs:
    """Read tables of recordings, in the order given; all need the same columns.

    Raises:
        InputError: a table cannot be read, lacks `path`, or names a recording twice.
    """
    tables = [_read(path) for path in paths]
    names = tables[0].column_names
    for path, table in zip(paths, tables, strict=True):
        if table.column_names != names:
            raise InputError(f"{path} has other columns than {paths[0]}", got=table.column_names, expected=names)
    try:
        merged = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError("the tables do not fit together", got=error) from error
    audio = EmbeddedAudio(paths) if "audio" in names else None
    folders = [split(path)[0] for path, table in zip(paths, tables, strict=True) for _ in range(len(table))]
    sources = _Listed(merged, folders, audio)
    handed = merged.drop_columns([name for name in ("path", "file", "audio", *TIMES) if name in names])
    if sources.has_ids and "id" not in names:
        handed = handed.append_column("id", pa.array([source.id for source in sources]))
    _check_unique(sources)
    carried = handed if handed.num_columns else None
    content = audio.content if audio else lambda _: None
    return Inputs(sources, carried, "id" if sources.has_ids else "file", content)


def _read(path: str) -> pa.Table:
    """One table; of embedded audio all but the bytes."""
    try:
        table = _parse(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table of recordings", got=error) from error
    if not {"path", "file", "audio"} & set(table.column_names):
        raise InputError(f"{path} names no recordings", got=table.column_names, expected="a column path")
    if not len(table):
        raise InputError(f"{path} lists no recordings", got="no rows")
    for name in {*TYPES} & set(table.column_names):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(TYPES[name]))
    return table


def _parse(path: str) -> pa.Table:
    kind = Path(path).suffix.lower()
    if kind == ".csv":
        return _parse_csv(path)
    source = readable(path)
    if kind in (".jsonl", ".ndjson"):
        from pyarrow import json

        return json.read_json(source)
    if kind == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            columns = [f"{name}.path" if is_audio(file.schema_arrow.field(name)) else name for name in names]
            return file.read(columns)
    content = Path(path).read_bytes() if isinstance(source, str) else source.read()
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    # Held as bytes, since names need not be UTF-8.
    return pa.table({"path": [line for line in lines if line.strip()]})


def _parse_csv(path: str) -> pa.Table:
    """Types of columns that are handed through are guessed, but for numbers that would not keep their digits."""
    from pyarrow import compute, csv

    def read(types: dict[str, pa.DataType], columns: list[str]) -> pa.Table:
        options = csv.ConvertOptions(column_types=types, include_columns=columns)
        return csv.read_csv(readable(path), convert_options=options)

    table = read(TYPES, [])
    guessed = {
        field.name: pa.string()
        for field in table.schema
        if field.name not in TYPES and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    }
    if not guessed:
        return table
    for name, column in zip(guessed, read(guessed, [*guessed]).columns, strict=True):
        if compute.any(compute.match_substring_regex(column, NO_NUMBER)).as_py():
            table = table.set_column(table.column_names.index(name), name, column)
    return table


class _Listed(Sources):
    """The recordings of a table, made as they are asked for."""

    def __init__(self, table: pa.Table, folders: list[str], audio: EmbeddedAudio | None) -> None:
        self._table, self._folders, self._audio = table, folders, audio
        names = set(table.column_names)
        self._path = next((name for name in ("path", "file") if name in names), None)
        self._times = [name for name in TIMES if name in names]
        self._versions: dict[str, tuple[int, int]] = {}
        self.has_ids = bool({"id", "audio"} & names or self._times)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Source]:
        columns = [name for name in (self._path, "id", *self._times) if name in self._table.column_names]
        start = 0
        for batch in self._table.select([*columns, *(["audio"] if self._audio else [])]).to_batches(4096):
            rows = batch.to_pylist()
            yield from (self._source(start + number, row) for number, row in enumerate(rows))
            start += len(rows)

    def _source(self, number: int, row: dict[str, Any]) -> Source:
        if self._audio is not None:
            home, place = self._audio.place(number)
            file = (row["audio"] or {}).get("path") or f"{Path(home).name}#{place}"
            path = home
            name = row.get("id") or f"{Path(home).name}#{place}"
        else:
            file = row[self._path] if self._path else None
            if not file:
                raise InputError(f"row {number} of the table has no path")
            path = join(self._folders[number], file)
            name = row.get("id") or ""
        span = _span(number, row)
        if self.has_ids and not name:
            name = file if span is None else f"{file}@{span[0]:g}-{span[1]:g}"
        return Source(path, printable(file), printable(name), span, number, self._version(path))

    def _version(self, path: str) -> tuple[int, int] | None:
        """Of a table in an object store that holds the audio: asked for once, not for each of its rows."""
        if self._audio is None or not is_url(path):
            return None
        if path not in self._versions:
            self._versions[path] = object_version(path) or (-1, -1)
        return self._versions[path]


def _span(number: int, row: dict[str, Any]) -> tuple[float, float] | None:
    start, end, duration = (row.get(name) for name in TIMES)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if start is None and end is None:
        return None
    if end is None or not 0 <= (start or 0.0) < end < float("inf"):
        raise InputError(
            f"row {number} of the table has no proper stretch",
            got=f"start {start}, end {end}",
            expected="0 ≤ start < end, in seconds",
        )
    return start or 0.0, end


def _check_unique(sources: Sequence[Source]) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.key in seen:
            raise InputError(f"the table lists {source.key!r} twice", remedy="Give each row an id of its own.")
        seen.add(source.key)
