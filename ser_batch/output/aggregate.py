"""One row per recording from one row per segment.

The rule: probabilities, the fusion's and each branch's, are the mean over the segments with status "ok", all with
the same weight; label and score are those of the mean. A recording with an error row is an error; one without a
single scored segment is silent if any of them is, else short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.output.parquet import write
from ser_batch.output.schema import is_split
from ser_batch.output.stores import Stored

PRECEDENCE = ("error", "ok", "silent", "short")
"""Which status of its segments a recording takes on."""
ROWS = 2_000
"""Recordings written at a time."""


def aggregate(tables: Sequence[Stored], key: str, labels: Sequence[str], out: Stored) -> None:
    """Write to `out` one row for each recording in `tables`, whose rows about a recording are together.

    Raises:
        OutputError: it cannot be written.
    """
    source = pq.read_schema(tables[0].source())
    whole = "segments" in source.names
    schema = source if whole else source.append(pa.field("segments", pa.int32(), nullable=False))
    write(out, schema, _tables(tables, key, labels, schema, whole=whole))


def _tables(
    tables: Sequence[Stored], key: str, labels: Sequence[str], schema: pa.Schema, *, whole: bool
) -> Iterator[pa.Table]:
    means = [name for name in schema.names if any(name.endswith(f"p_{label}") for label in labels)]
    split = is_split(schema)
    if whole:
        # Each recording, or each of its channels, is a row already.
        rows = _rows(tables)
        while some := list(islice(rows, ROWS)):
            yield pa.Table.from_pylist(some, schema)
        return
    held = []
    for _, segments in groupby(_rows(tables), key=lambda row: row[key]):
        if split:
            held.extend(_by_channel(list(segments), means, labels))
        else:
            held.append(_merge(segments, means, labels))
        if len(held) >= ROWS:
            yield pa.Table.from_pylist(held, schema)
            held = []
    if held:
        yield pa.Table.from_pylist(held, schema)


def _by_channel(rows: list[dict[str, Any]], means: list[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one recording whose channels are apart; an error, which is that of no channel, is that of each."""
    channels = sorted({row["channel"] for row in rows if row["channel"] is not None})
    chosen = [[row for row in rows if row["channel"] in (channel, None)] for channel in channels] or [rows]
    return [_merge(iter(each), means, labels) for each in chosen]


def _rows(tables: Sequence[Stored]) -> Iterator[dict[str, Any]]:
    for table in tables:
        with pq.ParquetFile(table.source()) as file:
            for batch in file.iter_batches(ROWS):
                yield from batch.to_pylist()


def _merge(segments: Iterator[dict[str, Any]], means: list[str], labels: Sequence[str]) -> dict[str, Any]:
    """The row of one recording; its segments are taken one at a time, since there may be many."""
    merged: dict[str, Any] = {}
    statuses: set[str] = set()
    sums = dict.fromkeys(means, 0.0)
    count = scored = 0
    for row in segments:
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
        if row["status"] == "ok":
            scored += 1
            for name in means:
                sums[name] += row[name]
    status = next(each for each in PRECEDENCE if each in statuses)
    merged |= {"status": status, "segments": count, "level": None, "label": None, "score": None}
    merged |= {name: sums[name] / scored if status == "ok" else None for name in means}
    if status == "ok":
        merged["score"], best = max((merged[f"p_{label}"], -number) for number, label in enumerate(labels))
        merged["label"] = labels[-best]
    return merged
