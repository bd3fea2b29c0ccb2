"""Parquet files that have their name only once they are whole and on disk, and their rows read back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError

BATCH_ROWS = 4096
"""Rows held as Python objects at a time."""


def write(file: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write `tables`, a row group each, to `file`: under a hidden name, synced, then renamed.

    Raises:
        OutputError: the disk is full, or the folder is gone; whatever had the name before is untouched.
    """
    temporary = temporary_of(file)
    # A dictionary of probabilities is as long as they are, and is held in memory for each column.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    try:
        with temporary.open("wb") as sink:
            with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating) as writer:
                for table in tables:
                    writer.write_table(table)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
        sync_folder(file.parent)
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError):
            temporary.unlink()
        raise unwritable(file, error) from error


def temporary_of(file: Path) -> Path:
    """Where `file` is written at first: a hidden name beside it, which readers of whole folders pass over."""
    return file.with_name(f".{file.name}.tmp")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: Exception) -> OutputError:
    """The error of an output that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return OutputError(f"{path} cannot be written", got=reason, remedy="Rows already written stay: --resume goes on.")


def read(file: Path, columns: list[str], groups: list[int] | None = None) -> pa.Table:
    """Columns of a file, or of some of its row groups."""
    # Not pq.read_table, which imports pyarrow.dataset first.
    with pq.ParquetFile(file) as opened:
        every = list(range(opened.num_row_groups)) if groups is None else groups
        return opened.read_row_groups(every, columns, use_threads=False)


def batches(files: Iterable[Path], columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Columns of `files` as Python lists, `BATCH_ROWS` rows at a time."""
    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield batch.to_pydict()


def take(table: pa.Table, rows: Iterable[int] | npt.NDArray[np.int64]) -> pa.Table:
    """Rows of a table, by number."""
    numbers = np.fromiter(rows, np.int64)
    # From a buffer: pa.array imports pandas where it is installed, half a second and 50 MB.
    return table.take(pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)]))
