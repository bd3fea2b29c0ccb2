"""What the columns of a table mean: the file, the stretch of it, the id; the others are handed through.

A row that makes no sense is a recording with a problem, which becomes an error row: it costs nothing but itself.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ser_batch.arrow import numbers, strings
from ser_batch.errors import InputError
from ser_batch.recordings.annotations import PARSERS
from ser_batch.recordings.embedded import EmbeddedAudio
from ser_batch.recordings.endings import ending
from ser_batch.recordings.listed import ListedTable, given_ids
from ser_batch.recordings.media import NOT_FOUND
from ser_batch.recordings.reader import (
    ANNOTATIONS,
    PATHS,
    PROBLEM,
    find_column,
    read_table,
)
from ser_batch.recordings.recording import UNKNOWN_VERSION, Version
from ser_batch.recordings.table import Recordings, roots
from ser_batch.recordings.text_tables import Problems
from ser_batch.recordings.times import Seconds, stretches
from ser_batch.storage.objects import object_version
from ser_batch.storage.urls import is_url, join, local_path, split
from ser_batch.text import printable

WEB = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def read_recordings(paths: Sequence[str], root: str | None = None) -> Recordings:
    """The recordings that tables list, in the order given; all tables need the same columns.

    Args:
        root: what relative paths start from; None: the folder of their table.

    Raises:
        InputError: a table cannot be read, names no files, or lists nothing.
    """
    listed = _listed(paths, root)
    embedded = EmbeddedAudio(paths) if listed[0].embedded else None
    columns, problems = _own_columns(listed, embedded, root)
    extra = _merged([each.extra for each in listed])
    starts, ends, wrong = _stretches(listed)
    problems = wrong | problems
    has_times = any(each.times for each in listed)
    ids = _ids(columns, listed, starts, ends, problems)
    if has_times or embedded or any(each.id for each in listed) or ids != columns["name"].to_pylist():
        columns["id"] = strings(ids, kind=pa.large_string())
        extra = _with_ids(extra, strings(ids), listed[0])
    if has_times:
        columns |= {"start": numbers(starts, np.float64), "end": numbers(ends, np.float64)}
        for name, times in (("start", starts), ("end", ends)):
            known = np.isfinite(times)
            extra[name] = numbers(times[known], np.float64, known)
    if problems:
        columns["problem"] = strings([problems.get(row) for row in range(len(ids))])
    return Recordings(columns, pa.table(extra) if extra else None, embedded)


def names_and_ids(path: str, table: pa.Table) -> tuple[list[str] | None, list[str] | None]:
    """What predictions call the rows of a table: `file`, and `id` if there are ids or stretches; None: there are none.

    A row that names nothing has an empty name.
    """
    file, own = find_column(table, PATHS), find_column(table, ["id"])
    if file is None and own is None:
        return None, None
    if file is None:
        return None, [printable(str(value or "").strip()) for value in table[own].to_pylist()]
    listed = ListedTable(path, table)
    names = [printable((name or "").strip()) for name in listed.table[listed.file].to_pylist()]
    if own is None and not listed.times:
        return names, None
    starts, ends, _ = _stretches([listed])
    default = _Names(names, starts, ends, embedded=False)
    suffixes = listed.suffixes()
    given = given_ids(listed)
    return names, [
        printable(value) if value else name and default.of(row) + suffixes[row]
        for row, (name, value) in enumerate(zip(names, given, strict=True))
    ]


def _listed(paths: Sequence[str], root: str | None) -> list[ListedTable]:
    """The tables; of several files of segments, one that cannot be read is an error row, and one may be empty."""
    listed: list[ListedTable] = []
    for path in paths:
        try:
            listed.append(ListedTable(path, read_table(path, root), may_be_empty=len(paths) > 1))
        except InputError as error:
            if len(paths) == 1 or ending(path) not in PARSERS:
                raise
            row = {"path": [Path(path).name], PROBLEM: [str(error)]}
            listed.append(ListedTable(path, pa.table(row).replace_schema_metadata(ANNOTATIONS)))
    for each in listed[1:]:
        each.check_like(listed[0])
    if not any(len(each.table) for each in listed):
        raise InputError(f"the table {paths[0]} and the others list no recordings", got="no segments in any of them")
    problems = [reason for each in listed if each.annotated for reason in each.problems]
    if problems and all((reason or "").startswith(NOT_FOUND) for reason in problems):
        raise InputError(f"the table {paths[0]} {problems[0]}")
    return listed


def _merged(tables: Sequence[pa.Table]) -> dict[str, Any]:
    """Handed-through columns of all tables, by name; one of several types becomes text."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for table in tables for name in table.column_names):
        columns = [table[name] if name in table.column_names else pa.nulls(len(table)) for table in tables]
        kinds = {column.type for column in columns} - {pa.null()}
        kind = kinds.pop() if len(kinds) == 1 else pa.string()
        try:
            chunks = [column.cast(kind) for column in columns]
        except pa.ArrowException as error:
            raise InputError(f"the tables do not fit together in column {name!r}", got=error) from error
        merged[name] = pa.chunked_array(
            [part for chunk in chunks for part in (chunk.chunks if isinstance(chunk, pa.ChunkedArray) else [chunk])],
            kind,
        )
    return merged


def _own_columns(
    listed: Sequence[ListedTable], embedded: EmbeddedAudio | None, root: str | None
) -> tuple[dict[str, pa.Array], Problems]:
    """Name and place of each recording; what the reader of a table says is wrong with rows."""
    reasons = enumerate(reason for each in listed for reason in each.problems)
    problems = {row: reason for row, reason in reasons if reason is not None}
    if embedded:
        return _embedded_columns(listed, embedded), problems
    return _file_columns(listed, root, problems), problems


def _file_columns(listed: Sequence[ListedTable], root: str | None, problems: Problems) -> dict[str, pa.Array]:
    """Name and root of recordings that are files; a problem for each row that names none."""
    homes = np.repeat(np.arange(len(listed)), [len(each.table) for each in listed])
    folders = [split(each.path)[0] if root is None else root for each in listed]
    folders, prefixes = _shared(folders) if listed[0].annotated else (folders, [""] * len(folders))
    names: list[str] = []
    places: list[str | None] = []
    for each, folder, prefix in zip(listed, folders, prefixes, strict=True):
        for row, given in enumerate(each.table[each.file].to_pylist()):
            given = given and join(prefix, given) if prefix else given
            name, place = given, None
            if not (given or "").strip():
                problems.setdefault(len(names), f"names no file; got an empty cell in column {each.file!r}")
                name = _in_table(each.path, row)
            elif WEB.match(given) and not is_url(given) and not given.lower().startswith("file:"):
                problems.setdefault(
                    len(names), "is an address in the web; expected a file, or s3:// or gs://. Download it first."
                )
            else:
                place = _place(folder, given)
            names.append(name)
            places.append(place)
    columns = {
        "name": strings(map(printable, names), kind=pa.large_string()),
        "root": roots(homes, folders),
    }
    if any(place is not None for place in places):
        found = [None if place is None else os.fsencode(place) for place in places]
        columns["path"] = strings(found, kind=pa.large_binary())
    return columns


def _shared(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folder that all are in, and the way from there to each: equal names in several folders stay apart."""
    if len(set(folders)) == 1 or any(map(is_url, folders)):
        return list(folders), [""] * len(folders)
    home = os.path.commonpath([os.path.abspath(folder) for folder in folders])  # noqa: PTH100
    ways = [os.path.relpath(folder or os.curdir, home) for folder in folders]
    return [os.path.relpath(home)] * len(folders), ["" if way == os.curdir else way for way in ways]


def _place(folder: str, name: str) -> str | None:
    """Where a file is that is written otherwise in the table than on this disk; None: where the name says.

    A table may come from Windows, or from a Mac, which writes é as e and an accent.
    """
    if name.isascii() and "\\" not in name and name == name.strip() and name[:1] != "~" and name[:5] != "file:":
        return None
    if is_url(folder) or is_url(name):
        return None
    forms = (name, name.strip(), name.replace("\\", "/"), os.path.expanduser(name))  # noqa: PTH111
    composed = (unicodedata.normalize(form, each) for form in ("NFC", "NFD") for each in (name, forms[2]))
    places = [join(folder, local_path(each)) for each in dict.fromkeys((*forms, *composed))]
    found = next((place for place in places if os.path.exists(place)), places[0])  # noqa: PTH110
    return None if found == join(folder, name) else found


def _embedded_columns(listed: Sequence[ListedTable], embedded: EmbeddedAudio) -> dict[str, pa.Array]:
    names = [name for each in listed for name in each.table[each.file].to_pylist()]
    places = [embedded.place(row) for row in range(len(names))]
    versions: dict[str, Version] = {
        home: object_version(home) or UNKNOWN_VERSION for home in {home for home, _ in places} if is_url(home)
    }
    columns = {
        "name": strings(
            [printable(name) if name else _in_table(*place) for name, place in zip(names, places, strict=True)],
            kind=pa.large_string(),
        ),
        "root": roots(np.zeros(len(names)), [""]),
        "path": strings([os.fsencode(home) for home, _ in places], kind=pa.large_binary()),
        "embedded": numbers(np.arange(len(names)), np.int64),
        "id": strings([_in_table(*place) for place in places], kind=pa.large_string()),
    }
    if versions:
        # Asked for once for each table in an object store, not for each of its rows.
        for index, name in enumerate(("size", "mtime_ns")):
            columns[name] = numbers([versions[home][index] for home, _ in places], np.int64)
    return columns


def _in_table(home: str, row: int) -> str:
    return f"{printable(Path(home).name)}#{row}"


def _stretches(listed: Sequence[ListedTable]) -> tuple[Seconds, Seconds, Problems]:
    starts, ends, problems, first = [], [], Problems(), 0
    for each in listed:
        times = {name: each.table[column] for name, column in each.times.items()}
        start, end, wrong = stretches(times, len(each.table))
        problems |= {first + row: reason for row, reason in wrong.items()}
        starts.append(start)
        ends.append(end)
        first += len(each.table)
    return np.concatenate(starts), np.concatenate(ends), problems


@dataclass(frozen=True)
class _Names:
    """What rows are known by without an id of their own."""

    names: list[str]
    starts: Seconds
    ends: Seconds
    embedded: bool

    def of(self, row: int, form: str = "g") -> str:
        """The name and the stretch of a row."""
        start, end = self.starts[row], self.ends[row]
        if self.embedded or np.isnan(end):
            return self.names[row]
        last = "" if np.isinf(end) else format(end, form)
        return f"{self.names[row]}@{format(start, form)}-{last}"


def _ids(
    columns: dict[str, pa.Array], listed: Sequence[ListedTable], starts: Seconds, ends: Seconds, problems: Problems
) -> list[str]:
    """The id as given; where there is none: that of embedded audio, or the name and the stretch.

    A row that is known by what another one is known by is a problem.
    """
    own = _Names(columns["id" if "id" in columns else "name"].to_pylist(), starts, ends, "id" in columns)
    given = [value for each in listed for value in given_ids(each)]
    suffixes = [suffix for each in listed for suffix in each.suffixes()]
    annotated = [each.annotated for each in listed for _ in range(len(each.table))]
    ids: list[str] = []
    seen: dict[str, int] = {}
    for row, value in enumerate(given):
        key = printable(value) if value else own.of(row) + suffixes[row]
        if key in seen and not value:
            # Six digits are few for a stretch of a long recording.
            key = own.of(row, ".12g") + suffixes[row]
        if key in seen and annotated[row]:
            # Two that speak at once, for one.
            key = next(f"{key}~{number}" for number in count(2) if f"{key}~{number}" not in seen)
        if key in seen:
            reason = (
                f"is listed twice: row {seen[key]} is {key!r}, too. Give each row an id of its own, in a column id."
            )
            problems.setdefault(row, reason)
            key = f"{key}#{row}"
        seen[key] = row
        ids.append(key)
    return ids


def _with_ids(extra: dict[str, Any], ids: pa.Array, listed: ListedTable) -> dict[str, Any]:
    """The handed-through columns, with `id` where the table had it, or else at the end."""
    names = list(extra)
    if listed.id is not None:
        before = listed.table.column_names[: listed.table.column_names.index(listed.id)]
        names.insert(sum(name in extra for name in before), "id")
    return {name: ids if name == "id" else extra[name] for name in dict.fromkeys((*names, "id"))}
