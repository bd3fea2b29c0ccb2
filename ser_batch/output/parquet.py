"""Parquet files that have their name only once they are whole and safe, and their rows read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError, StoreError
from ser_batch.output.stores import Stored

BATCH_ROWS = 4096
"""Rows held as Python objects at a time."""


def write(file: Stored, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write `tables`, a row group each, to `file`, which has its name once it is whole.

    Raises:
        OutputError: the disk is full, the folder is gone or the store is away; whatever had the name before is
            untouched.
    """
    # A dictionary of probabilities is as long as they are, and is held in memory for each column.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]

    def fill(sink: BinaryIO) -> None:
        with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating) as writer:
            for table in tables:
                writer.write_table(table)

    try:
        file.store.write(file.name, fill)
    except (OSError, pa.ArrowException, StoreError) as error:
        raise unwritable(file, error) from error


def unwritable(path: object, error: Exception) -> OutputError:
    """The error of an output that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return OutputError(f"{path} cannot be written", got=reason, remedy="Rows already written stay: --resume goes on.")


def read_schema(file: Stored) -> pa.Schema | None:
    """The columns of a file; None: it cannot be read."""
    try:
        return pq.read_schema(file.source())
    except (OSError, pa.ArrowException):
        return None


def read(file: Stored, columns: list[str], groups: list[int] | None = None) -> pa.Table:
    """Columns of a file, or of some of its row groups."""
    # Not pq.read_table, which imports pyarrow.dataset first.
    with pq.ParquetFile(file.source()) as opened:
        every = list(range(opened.num_row_groups)) if groups is None else groups
        return opened.read_row_groups(every, columns, use_threads=False)


def batches(files: Iterable[Stored], columns: list[str]) -> Iterator[tuple[Stored, pa.RecordBatch]]:
    """Columns of `files`, `BATCH_ROWS` rows at a time, each with its file; a file is opened once."""
    for file in files:
        with pq.ParquetFile(file.source()) as opened:
            for batch in opened.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield file, batch


def row_groups(files: Iterable[Stored], columns: list[str]) -> Iterator[pa.Table]:
    """The row groups of `files` one after the other; a file is opened once."""
    for file in files:
        with pq.ParquetFile(file.source()) as opened:
            for group in range(opened.num_row_groups):
                yield opened.read_row_group(group, columns, use_threads=False)
