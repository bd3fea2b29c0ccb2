"""One row per recording from one row per segment.

The rule: probabilities, the fusion's and each branch's, and the embedding are the mean over the segments with status
"ok", all with the same weight; label and score are those of the mean. A recording with an error row is an error; one
without a single scored segment is silent if any of them is, else short. Columns that were handed through are those of
its first row, untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import take
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.output.parquet import row_groups, write
from ser_batch.output.schema import handed_through, is_split
from ser_batch.output.stores import Stored

PRECEDENCE = ("error", "ok", "silent", "short")
"""Which status of its segments a recording takes on."""
ROWS = 2_000
"""Recordings written at a time."""
Row = dict[str, Any]


def aggregate(
    tables: Sequence[Stored], key: str, labels: Sequence[str], out: Stored, branch_labels: Sequence[str] = ()
) -> None:
    """Write to `out` one row for each recording in `tables`, whose rows about a recording are together.

    Args:
        branch_labels: of the branches' own rows; none: `labels`.

    Raises:
        OutputError: it cannot be written.
    """
    source = pq.read_schema(tables[0].source())
    whole = "segments" in source.names
    schema = source if whole else source.append(pa.field("segments", pa.int32(), nullable=False))
    write(out, schema, _tables(tables, key, labels, [*labels, *branch_labels], schema, whole=whole))


def _tables(
    tables: Sequence[Stored],
    key: str,
    labels: Sequence[str],
    averaged: Sequence[str],
    schema: pa.Schema,
    *,
    whole: bool,
) -> Iterator[pa.Table]:
    if whole:
        # Each recording, or each of its channels, is a row already.
        for table in tables:
            yield from (part.cast(schema) for part in row_groups([table], schema.names))
        return
    handed, split = handed_through(schema.names[:-1]), is_split(schema)
    own = [name for name in schema.names if name not in handed]
    # What a table of recordings brought may have any name.
    means = [name for name in own if name == EMBEDDING or any(name.endswith(f"p_{label}") for label in averaged)]
    held: list[tuple[Row, _Place]] = []
    for _, segments in groupby(_rows(tables, key, own[:-1], handed), key=lambda row: row[0]):
        if split:
            held.extend(_by_channel(list(segments), means, labels))
        else:
            held.append(_merge(segments, means, labels))
        if len(held) >= ROWS:
            yield _joined(held, own, schema)
            held = []
    if held:
        yield _joined(held, own, schema)


class _Place(NamedTuple):
    """A row of the columns that are handed through."""

    columns: pa.Table
    row: int


def _by_channel(
    rows: list[tuple[str, Row, _Place]], means: list[str], labels: Sequence[str]
) -> list[tuple[Row, _Place]]:
    """The rows of one recording whose channels are apart; an error, which is that of no channel, is that of each."""
    channels = sorted({row["channel"] for _, row, _ in rows if row["channel"] is not None})
    chosen = [[each for each in rows if each[1]["channel"] in (channel, None)] for channel in channels] or [rows]
    return [_merge(iter(each), means, labels) for each in chosen]


def _rows(tables: Sequence[Stored], key: str, own: list[str], handed: list[str]) -> Iterator[tuple[str, Row, _Place]]:
    """The rows of `tables`: the recording, the columns `own` as Python objects, and where the others are."""
    for table in tables:
        with pq.ParquetFile(table.source()) as file:
            for batch in file.iter_batches(ROWS):
                columns = pa.Table.from_batches([batch])
                keys, others = columns[key].to_pylist(), columns.select(handed)
                for number, row in enumerate(columns.select(own).to_pylist()):
                    yield keys[number], row, _Place(others, number)


def _joined(held: list[tuple[Row, _Place]], own: list[str], schema: pa.Schema) -> pa.Table:
    """Merged rows, and what was handed through with them."""
    merged = pa.Table.from_pylist([row for row, _ in held], pa.schema([schema.field(name) for name in own]))
    places = [place for _, place in held]
    batches = (list(group) for _, group in groupby(places, key=lambda place: id(place.columns)))
    handed = pa.concat_tables(
        [take(group[0].columns, [place.row for place in group]) for group in batches]
    ).unify_dictionaries()
    columns = [(merged if name in own else handed)[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def _merge(segments: Iterator[tuple[str, Row, _Place]], means: list[str], labels: Sequence[str]) -> tuple[Row, _Place]:
    """The row of one recording, and where its first one is; segments are taken one at a time: there may be many."""
    merged: Row = {}
    place: _Place | None = None
    statuses: set[str] = set()
    sums: dict[str, Any] = dict.fromkeys(means, 0.0)
    count = scored = 0
    seconds = clipped = 0.0
    for _, row, where in segments:
        place = place or where
        if not merged or row["start"] is None:
            # The last, an error, knows what is wrong, and no times.
            merged = {
                **row,
                **{name: value for name, value in merged.items() if value is not None},
                "error": row["error"],
            }
        statuses.add(row["status"])
        count += 1
        if row["end"] is not None:
            merged["end"], merged["duration"] = row["end"], row["duration"]
            merged["bandwidth"] = max(merged.get("bandwidth") or 0.0, row.get("bandwidth") or 0.0) or None
            merged["channel"] = merged.get("channel") or row.get("channel")
            seconds += row["end"] - row["start"]
            clipped += (row["end"] - row["start"]) * (row.get("clipped") or 0.0)
        if row["status"] == "ok":
            scored += 1
            for name in means:
                sums[name] += np.array(row[name], np.float64) if name == EMBEDDING else row[name]
    status = next(each for each in PRECEDENCE if each in statuses)
    merged |= {"status": status, "segments": count, "level": None, "label": None, "score": None}
    merged["clipped"] = clipped / seconds if seconds > 0 else None
    merged |= {name: sums[name] / scored if status == "ok" else None for name in means}
    if status == "ok":
        merged["score"], best = max((merged[f"p_{label}"], -number) for number, label in enumerate(labels))
        merged["label"] = labels[-best]
    assert place is not None
    return merged, place
