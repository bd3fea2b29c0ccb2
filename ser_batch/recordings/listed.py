"""One table of recordings, taken apart: the columns of the file, the stretch and the id, and those handed through."""

from __future__ import annotations

import re

import pyarrow as pa

from ser_batch.errors import InputError
from ser_batch.recordings.embedded import is_audio_column, parts_of, paths_in
from ser_batch.recordings.reader import ANNOTATIONS, PATHS, PROBLEM, TIMES, find_column, plain, shown
from ser_batch.recordings.times import are_seconds, seconds

OTHER_TIMES = re.compile(
    r"(?:(?P<start>start|begin|onset|tmin)|(?P<end>end|stop|tmax)|(?P<offset>offset)|(?P<duration>duration|dur))"
    r"(?:_?time)?(?:_(?:in_)?(?:s|secs?|seconds|(?P<ms>ms|msecs?|milliseconds)))?"
)
"""Other names of columns that make a stretch: `start_time`, `begin`, `stop`, `end_ms`, `onset` with `offset`."""


class ListedTable:
    """One table, its columns taken apart.

    Raises:
        InputError: no column names files, or there are no rows.
    """

    def __init__(self, path: str, table: pa.Table, *, may_be_empty: bool = False) -> None:
        self.path, self.table = path, table
        self.annotated = table.schema.metadata == ANNOTATIONS
        self.problems: list[str | None] = (
            table[PROBLEM].to_pylist() if PROBLEM in table.column_names else [None] * len(table)
        )
        audio = next((field.name for field in table.schema if is_audio_column(field)), None)
        self.embedded = audio is not None
        self.file = audio or find_column(table, PATHS)
        if self.file is None:
            raise InputError(
                f"the table {path} names no recordings",
                got=f"columns {shown([name for name in table.column_names if name != PROBLEM])}",
                expected=f"one of {', '.join(PATHS)}, in its first line or schema",
            )
        if not len(table) and not (self.annotated and may_be_empty):
            raise InputError(f"the table {path} lists no recordings", got="no rows")
        if "path" in parts_of(table.schema.field(self.file)):
            # Of datasets exported as JSON.
            self.table = table.set_column(table.column_names.index(self.file), self.file, paths_in(table[self.file]))
        elif table[self.file].type != pa.string():
            raise InputError(
                f"the table {path} names no recordings in its column {self.file!r}",
                got=table[self.file].type,
                expected="paths",
            )
        self.id = find_column(table, ["id"])
        self.table, self.times = _with_times(self.table)
        # `path` and `file` never pass for other columns: they are names of ours.
        taken = {"path", "file", self.file, PROBLEM, *self.times.values()}
        taken |= {name for name in table.column_names if name in TIMES[:3]}
        self.extra = table.drop_columns([name for name in table.column_names if name in taken or name == self.id])
        if "offset" in self.extra.column_names and pa.types.is_string(self.extra["offset"].type):
            offsets = pa.array(seconds(self.extra["offset"])[0], from_pandas=True)
            self.extra = self.extra.set_column(self.extra.column_names.index("offset"), "offset", offsets)

    def check_like(self, first: ListedTable) -> None:
        """Raise InputError unless the columns are those of `first`, or both are files of segments."""
        if self.annotated and first.annotated:
            return
        names, others = self.table.column_names, first.table.column_names
        if {*names} - {PROBLEM} != {*others} - {PROBLEM}:
            raise InputError(
                f"the table {self.path} has other columns than {first.path}",
                got=shown(names),
                expected=shown(others),
            )

    def suffixes(self) -> list[str]:
        """What tells segments of one stretch apart in their ids: the tier, or who speaks."""
        name = next((name for name in ("tier", "speaker") if self.annotated and name in self.table.column_names), None)
        values = [None] * len(self.table) if name is None else self.table[name].to_pylist()
        return [f"/{value}" if value else "" for value in values]


def _with_times(table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """The table with all times in seconds, and `start`, `end`, `duration` -> the column that says it.

    NeMo's `offset` is a start; beside an `onset` it is an end.
    """
    found = {name: given for name in TIMES[:3] if (given := find_column(table, [name])) is not None}
    table, others = _other_times(table)
    if "start" not in found and "start" in others:
        found = others | found
        if plain(found["start"]).startswith("onset") and "offset" in others:
            found.setdefault("end", others["offset"])
    elif "start" not in found and (offset := find_column(table, ["offset"])) is not None:
        found["start"] = offset
    elif "start" in found and not {"end", "duration"} & {*found}:
        found = others | found
    return table, {name: found[name] for name in TIMES[:3] if name in found}


def _other_times(table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """The same for columns that are named otherwise and hold seconds, or milliseconds where their name says so."""
    found: dict[str, str] = {}
    for index, name in enumerate(table.column_names):
        match = OTHER_TIMES.fullmatch(plain(name))
        if match is None or plain(name) in TIMES[:3]:
            continue
        kind = next(kind for kind in ("start", "end", "offset", "duration") if match[kind])
        unit = 1e-3 if match["ms"] else 1.0
        if kind in found or not are_seconds(table[name], unit):
            continue
        found[kind] = name
        if match["ms"]:
            table = table.set_column(index, name, pa.array(seconds(table[name])[0] * unit, from_pandas=True))
    return table, found


def given_ids(listed: ListedTable) -> list[str | None]:
    """The ids that a table gives; None or empty where it gives none."""
    if listed.id is None:
        return [None] * len(listed.table)
    return [None if value is None else str(value).strip() for value in listed.table[listed.id].to_pylist()]
