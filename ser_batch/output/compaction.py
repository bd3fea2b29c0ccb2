"""Parts into one table in the order of the recordings, a group of rows at a time, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import take
from ser_batch.output.parquet import read, row_groups
from ser_batch.output.rows import RowIndex, runs
from ser_batch.output.stores import Stored

GROUP_ROWS = 16_000
"""Rows of a row group of the finished table."""
Rows = npt.NDArray[np.int64]


def copied(files: Sequence[Stored], table: pa.Schema) -> Iterator[pa.Table]:
    """All rows as they are, in tables of about `GROUP_ROWS` rows; each file is read once."""
    held: list[pa.Table] = []
    for group in row_groups(files, table.names):
        held.append(_conformed(group, table))
        if sum(map(len, held)) >= GROUP_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def reordered(files: Sequence[Stored], order: Iterable[str], table: pa.Schema, key: str) -> Iterator[pa.Table]:
    """The latest rows of each recording of `order`, then those of recordings that are no longer among them."""
    # The index is let go of before rows are held.
    rows = _wanted(RowIndex(runs(files, key)), order)
    groups = list(_groups(files))
    starts = np.cumsum([0, *(count for _, _, count in groups)])
    for begin in range(0, len(rows), GROUP_ROWS):
        yield _take(rows[begin : begin + GROUP_ROWS], groups, starts, table)


def replaced(files: Sequence[Stored], key: str) -> Iterator[tuple[Stored, Rows]]:
    """Each file with rows that later ones replace, and the rows (within it) to keep."""
    index = RowIndex(runs(files, key))
    spans, latest = index.spans(), index.latest()
    keep = np.repeat(latest, spans[:, 1])
    start = 0
    for file in files:
        kept = keep[start : start + pq.read_metadata(file.source()).num_rows]
        start += len(kept)
        if not kept.all():
            yield file, np.flatnonzero(kept)


def _wanted(index: RowIndex, order: Iterable[str]) -> Rows:
    """Row numbers, in the order of the finished table."""
    spans, left = index.spans(), index.latest()
    found = np.fromiter(_numbers(index, order), dtype=np.int64)
    left[found] = False
    chosen = spans[np.concatenate([found, np.flatnonzero(left)])]
    # Runs to rows: each run's first row, and counting on from there.
    ends = np.cumsum(chosen[:, 1])
    counted = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - chosen[:, 1], chosen[:, 1])
    rows: Rows = np.repeat(chosen[:, 0], chosen[:, 1]) + counted
    return rows


def _numbers(index: RowIndex, order: Iterable[str]) -> Iterator[int]:
    for name in order:
        found = index.find(name)
        if found is None:
            raise AssertionError(f"no row was written for {name!r}")
        yield found.number


def _groups(files: Sequence[Stored]) -> Iterator[tuple[Stored, int, int]]:
    for file in files:
        metadata = pq.read_metadata(file.source())
        for group in range(metadata.num_row_groups):
            yield file, group, metadata.row_group(group).num_rows


def _take(rows: Rows, groups: list[tuple[Stored, int, int]], starts: Rows, table: pa.Schema) -> pa.Table:
    """Those rows, in that order: every row group that holds some of them is read once."""
    homes = np.searchsorted(starts, rows, side="right") - 1
    taken, places = [], []
    for home in np.unique(homes):
        file, group, _ = groups[home]
        here = np.flatnonzero(homes == home)
        taken.append(_conformed(take(read(file, table.names, [group]), rows[here] - starts[home]), table))
        places.append(here)
    # A row group read back has a dictionary of its own.
    merged = pa.concat_tables(taken).unify_dictionaries()
    return take(merged, np.argsort(np.concatenate(places), kind="stable")).cast(table)


def _conformed(rows: pa.Table, table: pa.Schema) -> pa.Table:
    """Rows of an earlier run with the types that the handed-through columns have now."""
    for index, field in enumerate(rows.schema):
        kind = table.field(field.name).type
        if field.type != kind and not pa.types.is_dictionary(kind):
            rows = rows.set_column(index, field.name, rows.column(index).cast(kind))
    return rows
