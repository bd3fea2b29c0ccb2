"""Crash-safe output: atomic Parquet parts, made into one file at the end or left as a folder.

Whatever has its name in a `Store` is whole: a disk's files are synced and renamed, an object goes up at once. The
parts are the truth and there is no second manifest: a row in a part is done, and a part says in its metadata
which bundle, backend and precision made it. A run killed at any moment loses only rows not yet in a part, and the
recording that it was in the middle of.
"""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError, StoreError
from ser_batch.output.compaction import in_order, is_ordered, reordered, stale
from ser_batch.output.destination import PARTS, SUCCESS, Output
from ser_batch.output.parquet import read, take, unwritable, write
from ser_batch.output.row_index import OPEN, RowIndex, is_open, runs
from ser_batch.output.store import Stored

PART_ROWS = 2_000
"""Rows of a part: what a crash can cost, and at a million rows still no more than 500 files."""


class Parts:
    """The unfinished output of one run; one process at a time.

    Args:
        out: where the rows go; the folder above it must exist.
        table: schema of the table, with its provenance.
        key: column that names the recording of a row.
        resume: go on with what is there, finished or not; otherwise parts are deleted.

    Raises:
        OutputError: another run holds the folder, it cannot be written, or (when resuming) what is there was
            made by another bundle, backend, precision, version or set of columns.
    """

    def __init__(self, out: Output, table: pa.Schema, *, key: str = "file", resume: bool = False) -> None:
        self.out, self.table, self.key = out, table, key
        self._batches: list[Any] = []
        self._rows = 0
        self._open = False
        try:
            self._lock = out.folder.lock()
            self._clear(everything=not resume)
        except OSError as error:
            raise unwritable(out, error) from error
        self.files = out.part_files()
        for file in self.files:
            self._check(file)
        self._base = self._finished_before() if resume else []
        self._drop_unfinished_recording()

    def index(self) -> RowIndex:
        """What has rows already."""
        return RowIndex(runs([*self._base, *self.files], self.key))

    def append(self, batch: Any, *, complete: bool = True) -> None:
        """Take a record batch of `table`; it is on disk once a part is full, or after `flush`.

        Args:
            complete: whether there are no more rows to come about the recording of its last row.
        """
        self._batches.append(batch)
        self._rows += len(batch)
        self._open = not complete
        if self._rows >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows taken so far as a part.

        Raises:
            OutputError: the disk is full, or the folder is gone; the parts already written stay valid.
        """
        if not self._rows:
            return
        number = int(self.files[-1].name.removeprefix("part-").removesuffix(".parquet")) + 1 if self.files else 0
        file = Stored(self.out.folder, f"part-{number:06d}.parquet")
        self._write_part(file, pa.Table.from_batches(self._batches), is_open=self._open)
        self.files.append(file)
        self._batches, self._rows = [], 0

    def finish(self, order: Iterable[str]) -> None:
        """Bring the output to its final form: every recording once, in a file in the order of `order`.

        A folder keeps its parts in the order of writing. Rows about recordings outside `order`, which an
        earlier run made, come after the others.

        Args:
            order: names of the recordings; it is gone through twice.

        Raises:
            OutputError: the disk is full, or the folder is gone; the parts stay valid.
        """
        self.flush()
        try:
            if self.out.keeps_parts:
                self._drop_stale()
                self.out.home.mark(SUCCESS)
            else:
                self._compact(order)
                self._clear(everything=True)
                self.files = []
        except (OSError, StoreError) as error:
            raise unwritable(self.out, error) from error
        self.close()

    def close(self) -> None:
        """Let another run take the folder; one without parts is deleted."""
        self._lock.release(remove=not self.files)

    def _compact(self, order: Iterable[str]) -> None:
        files = [*self._base, *self.files]
        names = self.table.names
        if is_ordered(files, order, self.key):
            if self.files:
                write(self.out.file, self.table, in_order(files, names))
        else:
            # Resumed with other inputs than before: the latest rows of each recording, in the order of now.
            write(self.out.file, self.table, reordered(files, order, self.table, self.key))

    def _drop_stale(self) -> None:
        # Only rows that later ones replace are dropped, so a crash between two files loses nothing.
        for file, kept in list(stale(self.files, self.key)):
            if len(kept):
                table = take(read(file, self.table.names), kept).cast(self.table)
                self._write_part(file, table, is_open=is_open(file))
            else:
                file.delete()
        self.files = self.out.part_files()

    def _drop_unfinished_recording(self) -> None:
        """Delete the rows of a recording that a killed run was in the middle of; it is read again."""
        if not self.files or not is_open(self.files[-1]):
            return
        names = read(self.files[-1], [self.key]).column(0)
        name = names[-1].as_py()
        while self.files and is_open(self.files[-1]):
            # From the last part backwards, so that a crash here leaves an unfinished recording once more.
            table = read(self.files[-1], self.table.names)
            kept = [row for row, other in enumerate(table.column(self.key).to_pylist()) if other != name]
            if kept:
                whole = take(table, kept).cast(self.table)
                self._write_part(self.files[-1], whole, is_open=False)
                return
            self.files.pop().delete()

    def _write_part(self, file: Stored, table: pa.Table, *, is_open: bool) -> None:
        metadata = {**(self.table.metadata or {}), **({OPEN: b"yes"} if is_open else {})}
        write(file, self.table.with_metadata(metadata), [table])

    def _clear(self, *, everything: bool) -> None:
        """Delete what a run has left half-written, or all it has written; anything else is somebody's, and stays."""
        self.out.folder.clean(PARTS)
        if self.out.name is not None:
            self.out.home.clean(escape(self.out.name))
        # A folder that is gone on with is not finished any more.
        if self.out.keeps_parts:
            self.out.finished.delete()
        if everything:
            for file in self.out.part_files():
                file.delete()

    def _finished_before(self) -> list[Stored]:
        """The finished table, if there is one to add to."""
        if self.out.keeps_parts or not self.out.file.size():
            return []
        try:
            self._check(self.out.file)
        except OutputError:
            # Parts that fit were checked before: they belong to a run that was replacing this table.
            if self.files:
                return []
            raise
        return [self.out.file]

    def _check(self, file: Stored) -> None:
        try:
            found = pq.read_schema(file.source())
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{file} cannot be read", got=error, remedy="Start anew: --overwrite.") from error
        ours = self.table.metadata or {}
        theirs = {key: value for key, value in (found.metadata or {}).items() if key != OPEN}
        if found.names == self.table.names and theirs == ours:
            return
        keys = sorted(key for key in {*ours, *theirs} if theirs.get(key) != ours.get(key))
        differing = ", ".join(f"{key.decode()} {theirs.get(key, b'nothing').decode()}" for key in keys)
        raise OutputError(
            f"{file} holds results of another configuration",
            got=differing or "other columns",
            remedy="Resume with that one, or start anew with --overwrite.",
        )
