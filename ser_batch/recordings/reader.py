"""The one reader of the tables that people keep of recordings: CSV, JSON lines, Parquet, lists of paths.

A row has `path` (relative to the table's own folder), and optionally `id`, `start` and `end` or `duration` in
seconds: that stretch of the file is then a recording of its own. In place of `path`, Parquet may have `audio`, a
struct of `bytes` and `path`, as Hugging Face's datasets do. All other columns are handed through to the predictions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ser_batch.arrow import numbers, strings
from ser_batch.errors import InputError
from ser_batch.recordings.embedded import EmbeddedAudio, is_audio_column
from ser_batch.recordings.recording import UNKNOWN_VERSION, Version
from ser_batch.recordings.table import Recordings, roots
from ser_batch.storage.objects import object_version, readable
from ser_batch.storage.urls import is_url, split
from ser_batch.text import printable

TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".txt", ".lst")
"""Endings of files that list recordings, one per line or row."""
PATHS = ("path", "file")
"""Columns that name the file of a recording, the preferred one first."""
TIMES = ("start", "end", "duration")
TYPES = {**dict.fromkeys((*PATHS, "id", "label"), pa.string()), **dict.fromkeys(TIMES, pa.float64())}
"""Types that are not guessed: a label 01 stays what it is."""
NO_NUMBER = r"^[+-]?0\d|^[+-]?\d{16,}$"
"""What reads as a number and is a name: 007 would come back as 7, and a double keeps only some of so many digits."""


def is_table(path: str) -> bool:
    """Whether a file of that name is taken for a table of recordings."""
    return Path(path).suffix.lower() in TABLES


def read_table(path: str) -> pa.Table:
    """A table as its owner saved it: CSV, JSON lines, Parquet (of embedded audio all but the bytes), a list of paths.

    The columns of `TYPES` have their types there, a list of paths has the column `path`; types of other columns are
    guessed, but for numbers that would lose digits.

    Raises:
        InputError: it cannot be read as such a table.
    """
    try:
        table = _parsed(path)
        for name in [name for name in table.column_names if name in TYPES]:
            table = table.set_column(table.column_names.index(name), name, table[name].cast(TYPES[name]))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table", got=error) from error
    return table


def read_recordings(paths: Sequence[str]) -> Recordings:
    """The recordings that tables list, in the order given; all tables need the same columns.

    Raises:
        InputError: a table cannot be read, has no column `path`, lists nothing, or lists a recording twice.
    """
    tables = [_listing(path) for path in paths]
    names = tables[0].column_names
    for path, table in zip(paths, tables, strict=True):
        if table.column_names != names:
            raise InputError(f"{path} has other columns than {paths[0]}", got=table.column_names, expected=names)
    try:
        merged = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError("the tables do not fit together", got=error) from error
    embedded = EmbeddedAudio(paths) if "audio" in names else None
    columns = _embedded_columns(merged, embedded) if embedded else _file_columns(merged, paths, tables)
    columns |= _spans(merged)
    extra = merged.drop_columns([name for name in (*PATHS, "audio", *TIMES) if name in names])
    if {"id", "audio", *TIMES} & set(names):
        columns["id"] = _ids(columns, merged)
        position = extra.column_names.index("id") if "id" in extra.column_names else extra.num_columns
        extra = extra.drop_columns("id") if "id" in extra.column_names else extra
        extra = extra.add_column(position, "id", columns["id"].cast(pa.string()))
    recordings = Recordings(columns, extra if extra.num_columns else None, embedded)
    _check_unique(recordings)
    return recordings


def _listing(path: str) -> pa.Table:
    table = read_table(path)
    if not {*PATHS, "audio"} & set(table.column_names):
        raise InputError(f"{path} names no recordings", got=table.column_names, expected="a column path")
    if not len(table):
        raise InputError(f"{path} lists no recordings", got="no rows")
    return table


def _parsed(path: str) -> pa.Table:
    kind = Path(path).suffix.lower()
    if kind not in TABLES or kind == ".csv":
        return _parsed_csv(path)
    source = readable(path)
    if kind in (".jsonl", ".ndjson"):
        from pyarrow import json

        return json.read_json(source)
    if kind == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            fields = [file.schema_arrow.field(name) for name in names]
            return file.read([f"{field.name}.path" if is_audio_column(field) else field.name for field in fields])
    content = Path(path).read_bytes() if isinstance(source, str) else source.read()
    # Held as bytes, since names need not be UTF-8.
    return pa.table({"path": strings([_utf8(line) for line in content.splitlines() if line.strip()])})


def _utf8(line: bytes) -> str:
    return line.decode("utf-8")


def _parsed_csv(path: str) -> pa.Table:
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


def _file_columns(merged: pa.Table, paths: Sequence[str], tables: Sequence[pa.Table]) -> dict[str, pa.Array]:
    """Name and root of recordings that are files: the root is the folder of their table."""
    given = next(name for name in PATHS if name in merged.column_names)
    names = merged[given].to_pylist()
    if not all(names):
        raise InputError(f"row {next(row for row, name in enumerate(names) if not name)} of the table has no path")
    homes = np.repeat(np.arange(len(paths)), [len(table) for table in tables])
    folders = [split(path)[0] for path in paths]
    return {"name": strings(map(printable, names), kind=pa.large_string()), "root": roots(homes, folders)}


def _embedded_columns(merged: pa.Table, embedded: EmbeddedAudio) -> dict[str, pa.Array]:
    places = [embedded.place(row) for row in range(len(merged))]
    names = [(audio or {}).get("path") for audio in merged["audio"].to_pylist()]
    versions: dict[str, Version] = {
        home: object_version(home) or UNKNOWN_VERSION for home in {home for home, _ in places} if is_url(home)
    }
    columns = {
        "name": strings(
            [name or _in_table(*place) for name, place in zip(names, places, strict=True)], kind=pa.large_string()
        ),
        "root": roots(np.zeros(len(merged)), [""]),
        "path": strings([os.fsencode(home) for home, _ in places], kind=pa.large_binary()),
        "embedded": numbers(np.arange(len(merged)), np.int64),
        "id": strings([_in_table(*place) for place in places], kind=pa.large_string()),
    }
    if versions:
        # Asked for once for each table in an object store, not for each of its rows.
        for index, name in enumerate(("size", "mtime_ns")):
            columns[name] = numbers([versions[home][index] for home, _ in places], np.int64)
    return columns


def _in_table(home: str, row: int) -> str:
    return f"{printable(Path(home).name)}#{row}"


def _spans(merged: pa.Table) -> dict[str, pa.Array]:
    """Start and end of each recording in seconds; NaN where it is the whole file."""
    given = [merged[name].to_pylist() if name in merged.column_names else [None] * len(merged) for name in TIMES]
    if not {*TIMES} & set(merged.column_names):
        return {}
    spans = [_span(row, *times) for row, times in enumerate(zip(*given, strict=True))]
    return {
        name: numbers([np.nan if span is None else span[index] for span in spans], np.float64)
        for index, name in enumerate(("start", "end"))
    }


def _span(row: int, start: float | None, end: float | None, duration: float | None) -> tuple[float, float] | None:
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if start is None and end is None:
        return None
    if end is None or not 0 <= (start or 0.0) < end < float("inf"):
        raise InputError(
            f"row {row} of the table has no proper stretch",
            got=f"start {start}, end {end}",
            expected="0 ≤ start < end, in seconds",
        )
    return start or 0.0, end


def _ids(columns: dict[str, pa.Array], merged: pa.Table) -> pa.Array:
    """The id as given; where there is none: that of embedded audio, or the name and the stretch."""
    count = len(merged)
    given = merged["id"].to_pylist() if "id" in merged.column_names else [None] * count
    names = columns["id" if "id" in columns else "name"].to_pylist()
    starts, ends = (columns[each].to_pylist() if each in columns else [np.nan] * count for each in ("start", "end"))

    def named(name: str, start: float, end: float) -> str:
        return name if end != end or "embedded" in columns else f"{name}@{start:g}-{end:g}"

    rows = zip(given, names, starts, ends, strict=True)
    return strings(
        [printable(own or named(name, start, end)) for own, name, start, end in rows], kind=pa.large_string()
    )


def _check_unique(recordings: Recordings) -> None:
    seen: set[str] = set()
    for key in recordings.keys():  # noqa: SIM118 — not a mapping's
        if key in seen:
            raise InputError(f"the table lists {key!r} twice", remedy="Give each row an id of its own.")
        seen.add(key)
