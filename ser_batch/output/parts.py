"""Crash-safe output: atomic Parquet parts, made into one file at the end or left as a folder.

Whatever has its name in a `Store` is whole: a disk's files are synced and renamed, an object goes up at once. The
parts are the truth and there is no second manifest: a row in a part is done, and a part says in its metadata
which bundle, backend and precision made it. A run killed at any moment loses only rows not yet in a part, and the
recording that it was in the middle of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from glob import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import take
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.errors import OutputError, StoreError
from ser_batch.output.compaction import copied, reordered, replaced
from ser_batch.output.destination import PARTS, SUCCESS, Output
from ser_batch.output.parquet import read, read_schema, unwritable, write
from ser_batch.output.rows import OPEN, Counts, RowIndex, Run, is_open, runs
from ser_batch.output.schema import NAMESPACE, handed_through
from ser_batch.output.stores import Stored

PART_ROWS = 2_000
"""Rows of a part: what a crash can cost, and at a million rows still no more than 500 files."""


class Parts:
    """The unfinished output of one run; one process at a time.

    A fresh run reads no part that it wrote, but for the one pass that makes a single file of them: what has rows,
    whether they are in order and what they say is known from writing them.

    Args:
        out: where the rows go; the folder above it must exist.
        table: schema of the table, with its provenance.
        order: what the recordings are known by, in the order of the finished table; gone through more than once.
        key: column that names the recording of a row.
        resume: go on with what is there, finished or not; otherwise parts are deleted.
        counts: keeps count of the rows of the whole output.

    Raises:
        OutputError: another run holds the folder, it cannot be written, or (when resuming) what is there was
            made by another bundle, backend, precision, version or set of columns.
    """

    def __init__(
        self,
        out: Output,
        table: pa.Schema,
        order: Iterable[str],
        *,
        key: str = "file",
        resume: bool = False,
        counts: Counts | None = None,
    ) -> None:
        self.out, self.table, self.key = out, table, key
        self._names, self._order, self._counts = order, _Order(order), counts
        self._batches: list[Any] = []
        self._rows = 0
        self._last: str | None = None
        """The recording whose rows may go on."""
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
        self.index = RowIndex(self._known())
        """What has rows from earlier runs."""
        self._is_fresh = not len(self.index)
        self._replaces = not self.index.latest().all()

    def append(self, batch: Any, *, complete: bool = True) -> None:
        """Take a record batch of `table`; it is on disk once a part is full, or after `flush`.

        Args:
            complete: whether there are no more rows to come about the recording of its last row.
        """
        for name in batch.column(self.key).to_pylist():
            if name != self._last:
                self._order.see(name)
                self._last = name
                self._replaces = self._replaces or not (self._is_fresh or self.index.find(name) is None)
        if complete:
            self._last = None
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
        number = int(self.files[-1].name.removeprefix("part-").removesuffix(".parquet")) + 1 if self.files else 0
        file = Stored(self.out.folder, f"part-{number:06d}.parquet")
        self._write_part(file, pa.Table.from_batches(self._batches), is_open=self._last is not None)
        self.files.append(file)
        self._batches, self._rows = [], 0

    def finish(self) -> None:
        """Bring the output to its final form: every recording once, in a file in the order of the recordings.

        A folder keeps its parts in the order of writing. Rows about other recordings, which an earlier run made,
        come after the others.

        Raises:
            OutputError: the disk is full, or the folder is gone; the parts stay valid.
        """
        self.flush()
        try:
            if self.out.keeps_parts:
                self._drop_replaced()
                self.out.home.mark(SUCCESS)
            else:
                self._compact()
                self.out.render()
                self._clear(everything=True)
                self.files = []
        except (OSError, StoreError) as error:
            raise unwritable(self.out, error) from error
        self.close()

    def close(self) -> None:
        """Let another run take the folder; one without parts is deleted."""
        self._lock.release(remove=not self.files)

    def _known(self) -> Iterator[Run]:
        """The runs of rows that earlier runs left; they are counted, and their order noted, as they go by."""
        count = None if self._counts is None else self._counts.add
        for run in runs([*self._base, *self.files], self.key, count=count, given=handed_through(self.table.names)):
            self._order.see(run.name)
            yield run

    def _compact(self) -> None:
        files = [*self._base, *self.files]
        if not self._order.is_complete():
            # Resumed with other recordings than before: the latest rows of each, in the order of now.
            tables = reordered(files, self._names, self.table, self.key)
            write(self.out.file, self.table, self._recounted(tables))
        elif self.files:
            write(self.out.file, self.table, copied(files, self.table))

    def _recounted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Tables as they are; from here on the counts are of them alone."""
        if self._counts is not None:
            self._counts.clear()
        for table in tables:
            if self._counts is not None:
                self._counts.add(table)
            yield table

    def _drop_replaced(self) -> None:
        """Delete the rows that later ones replace, and only these: a crash between two files loses nothing."""
        if not self._replaces:
            return
        for file, kept in list(replaced(self.files, self.key)):
            table = read(file, self.table.names)
            if self._counts is not None:
                self._counts.add(take(table, np.setdiff1d(np.arange(len(table)), kept)), sign=-1)
            if len(kept):
                self._write_part(file, take(table, kept).cast(self.table), is_open=is_open(file))
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
            self._check_types(file, found)
            return
        embedding = f"{NAMESPACE}{EMBEDDING}".encode()
        if ours.get(embedding) != theirs.get(embedding):
            raise OutputError(
                f"{file} {_embeddings(theirs.get(embedding))}, where this run {_embeddings(ours.get(embedding))}",
                remedy="Resume with the same --embeddings, or start anew with --overwrite.",
            )
        keys = sorted(key for key in {*ours, *theirs} if theirs.get(key) != ours.get(key))
        differing = ", ".join(f"{key.decode()} {theirs.get(key, b'nothing').decode()}" for key in keys)
        raise OutputError(
            f"{file} holds results of another configuration",
            got=differing or "other columns",
            remedy="Resume with that one, or start anew with --overwrite.",
        )

    def _check_types(self, file: Stored, found: pa.Schema) -> None:
        """Raise OutputError if a handed-through column had another type, which its values cannot be made to have."""
        for name in handed_through(self.table.names):
            before, now = found.field(name).type, self.table.field(name).type
            becomes_text = pa.types.is_string(now) and not pa.types.is_nested(before)
            # Parquet changes the units of times.
            alike = before.id == now.id or (pa.types.is_temporal(before) and pa.types.is_temporal(now))
            widened = pa.types.is_integer(before) and pa.types.is_floating(now)
            if not (alike or becomes_text or widened or pa.types.is_null(before)):
                raise OutputError(
                    f"{file} has another type of column {name!r}",
                    got=before,
                    expected=now,
                    remedy="Resume with a table like the first, or start anew with --overwrite.",
                )


def schema_before(out: Output) -> pa.Schema | None:
    """The schema of the output that an earlier run left, finished or not; None if there is none to be read."""
    there = out.part_files()[:1]
    if not there and not out.keeps_parts and out.file.size():
        there = [out.file]
    # What is wrong with one that cannot be read is said where it is gone on with.
    return read_schema(there[0]) if there else None


def _embeddings(said: bytes | None) -> str:
    return "has no embeddings" if said is None else f"has embeddings {said.decode()}"


class _Order:
    """Whether recordings come in the order wanted, each once."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._left = iter(wanted)
        self._holds = True

    def see(self, name: str) -> None:
        """Take note of the next recording."""
        self._holds = self._holds and next(self._left, None) == name

    def is_complete(self) -> bool:
        """Whether all have come, in order; asked once, at the end."""
        return self._holds and next(self._left, None) is None
