"""Crash-safe output: atomic Parquet parts beside the output, made into one file at the end.

Every file is written under a temporary name, synced and renamed, so whatever has its final name is whole. The
parts are the truth and there is no second manifest: a row in a part is done, and a part says in its metadata
which bundle, backend and precision made it. A run killed at any moment loses only rows not yet in a part.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError
from ser_batch.predictions import part_schema

PART_ROWS = 2_000
"""Rows of a part: what a crash can cost, and at a million rows still no more than 500 files."""
PARTS_A_GROUP = 8
"""Parts that become one row group of the finished table."""
PARTS = "part-*.parquet"
FINAL = "final.tmp"
LOCK = "lock"


class Parts:
    """The unfinished output of one run, in `<out>.parts/`; one process at a time.

    Args:
        out: where the finished table goes; the folder must exist.
        table: schema of the finished table, with its provenance.
        resume: go on with the parts that are there; otherwise they are deleted.

    Raises:
        OutputError: another run holds the folder, it cannot be written, or (when resuming) a part was made
            by another bundle, backend, precision, version or set of columns.
    """

    def __init__(self, out: Path, table: pa.Schema, *, resume: bool = False) -> None:
        self.out, self.folder, self.table = out, parts_folder(out), table
        self.schema = part_schema(table)
        self._batches: list[Any] = []
        self._rows = 0
        try:
            self._lock = _lock(self.folder)
            self._clear("*.tmp" if resume else "*.*")
        except OSError as error:
            raise _unwritable(out, error) from error
        self.files = sorted(self.folder.glob(PARTS))
        for file in self.files:
            self._check(file)

    def done(self) -> dict[str, tuple[int, int]]:
        """File -> size and mtime (ns) of the input that its latest row is about."""
        found: dict[str, tuple[int, int]] = {}
        for file in self.files:
            keys = _read(file, ["file", "source_size", "source_mtime_ns"]).to_pydict()
            versions = zip(keys["source_size"], keys["source_mtime_ns"], strict=True)
            found.update(zip(keys["file"], versions, strict=True))
        return found

    def append(self, batch: Any) -> None:
        """Take a record batch of `schema`; it is on disk once a part is full, or after `flush`."""
        self._batches.append(batch)
        self._rows += len(batch)
        if self._rows >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows taken so far as a part.

        Raises:
            OutputError: the disk is full, or the folder is gone; the parts already written stay valid.
        """
        if not self._rows:
            return
        number = int(self.files[-1].stem.removeprefix("part-")) + 1 if self.files else 0
        file = self.folder / f"part-{number:06d}.parquet"
        _write(file.with_suffix(".tmp"), file, self.schema, [pa.Table.from_batches(self._batches)])
        self.files.append(file)
        self._batches, self._rows = [], 0

    def finish(self, order: Sequence[str]) -> None:
        """Write the table, one row for each of `order` in that order, then delete the parts.

        Raises:
            OutputError: the disk is full, or the folder is gone; the parts stay valid.
        """
        self.flush()
        _write(self.folder / FINAL, self.out, self.table, self._ordered(order))
        self._clear("*.*")
        self.files = []
        self.close()

    def close(self) -> None:
        """Let another run take the folder; one without parts is deleted."""
        if not self._lock.closed and not self.files:
            with suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        self._lock.close()

    def _clear(self, pattern: str) -> None:
        """Delete what a run has written; anything else in the folder is somebody's, and stays."""
        for file in self.folder.glob(pattern):
            if file.name == FINAL or re.fullmatch(r"part-\d+\.(tmp|parquet)", file.name):
                file.unlink()

    def _ordered(self, order: Sequence[str]) -> Iterator[pa.Table]:
        names = self.table.names
        if all(row == wanted for row, wanted in zip_longest(self._written(), order)):
            # The usual case, a few parts at a time: memory stays flat, and row groups are of a useful size.
            for start in range(0, len(self.files), PARTS_A_GROUP):
                group = self.files[start : start + PARTS_A_GROUP]
                yield pa.concat_tables(_read(file, names) for file in group)
            return
        # Resumed with other inputs than before: the latest row of each file that is still wanted.
        latest = {name: row for row, name in enumerate(self._written())}
        merged = pa.concat_tables([_read(file, names) for file in self.files])
        yield merged.take(pa.array([latest[name] for name in order], pa.int64()))

    def _written(self) -> Iterator[str]:
        for file in self.files:
            yield from _read(file, ["file"]).column(0).to_pylist()

    def _check(self, file: Path) -> None:
        try:
            found = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{file} cannot be read", got=error, remedy="Start anew: --overwrite.") from error
        if found.names == self.schema.names and found.metadata == self.schema.metadata:
            return
        differing = {
            key.decode(): (found.metadata or {}).get(key, b"nothing").decode()
            for key in self.schema.metadata
            if (found.metadata or {}).get(key) != self.schema.metadata[key]
        }
        raise OutputError(
            f"{self.folder} holds results of another configuration",
            got=", ".join(f"{key} {value}" for key, value in differing.items()) or "other columns",
            remedy="Resume with that one, or start anew with --overwrite.",
        )


def parts_folder(out: Path) -> Path:
    """Where the unfinished output of `out` lies."""
    return out.with_name(out.name + ".parts")


def check_output(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output that cannot be written or must not be replaced; changes nothing.

    Raises:
        OutputError: says which, and what to do.
    """
    if out.is_dir():
        raise OutputError(f"{out} is a folder", expected="the path of a Parquet file")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is not an existing folder", remedy="Make it, or choose another --out.")
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out.parent} cannot be written", remedy="Choose another --out.")
    unfinished = parts_folder(out).is_dir()
    if overwrite and os.path.lexists(out) and not _is_replaceable(out):
        raise OutputError(f"{out} exists and is no Parquet file, so it is not overwritten")
    if overwrite or (resume and (unfinished or not os.path.lexists(out))):
        return
    if unfinished:
        raise OutputError(
            f"{out} is unfinished: {parts_folder(out)} holds the parts of an earlier run",
            remedy="Go on with it: --resume; or start anew: --overwrite.",
        )
    if os.path.lexists(out):
        raise OutputError(f"{out} exists already", remedy="Choose another --out, or replace it: --overwrite.")


def _is_replaceable(out: Path) -> bool:
    # Keeps a slip such as `--out speech.wav --overwrite` from costing a recording.
    if not out.is_file():
        return False
    with out.open("rb") as file:
        return file.read(4) in (b"PAR1", b"")


def _lock(folder: Path) -> IO[bytes]:
    """Make `folder` and lock it; the lock ends with the process, however that ends."""
    folder.mkdir(exist_ok=True)
    file = (folder / LOCK).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OutputError(
            f"another run is writing to {folder}", remedy="Let it end, or choose another --out."
        ) from error
    return file


def _write(temporary: Path, file: Path, schema: pa.Schema, tables: Sequence[pa.Table] | Iterator[pa.Table]) -> None:
    """Write a Parquet file that has its name only once it is whole and on disk."""
    try:
        with temporary.open("wb") as sink:
            with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
        _sync_folder(file.parent)
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError):
            temporary.unlink()
        raise _unwritable(file, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path, columns: list[str]) -> pa.Table:
    # Not pq.read_table, which imports pyarrow.dataset first.
    with pq.ParquetFile(file) as part:
        return part.read(columns)


def _unwritable(path: Path, error: Exception) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return OutputError(f"{path} cannot be written", got=reason)
