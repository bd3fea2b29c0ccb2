"""Where a run writes: one file, or a folder that keeps its parts; and what must not be replaced."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError
from ser_batch.output.formats import check_ending, is_rendered, render
from ser_batch.output.schema import NAMESPACE
from ser_batch.output.stores import LocalStore, Store, Stored, matching
from ser_batch.storage.urls import is_url, split

PARTS = f"part-{'[0-9]' * 6}.parquet"
"""Ours and no one else's: Spark's names go on after the number, pyarrow's have fewer digits."""
SUCCESS = "_SUCCESS"
"""Says that a folder of parts is finished; readers of Parquet folders pass over names with an underscore."""


@dataclass(frozen=True)
class Output:
    """The place that `--out` names, on a disk or in an object store."""

    home: Store
    """The folder that holds the file, or the parts that are kept."""
    name: str | None
    """Of the file; None: the parts are kept."""

    @classmethod
    def parse(cls, out: str | os.PathLike[str]) -> Output:
        """Read `--out`: a folder if it ends with a slash or is one, else a file."""
        text = os.fspath(out)
        whole = open_store(text)
        folder, name = split(text)
        if not name or whole.is_there():
            return cls(whole, None)
        return cls(open_store(folder), name)

    def __str__(self) -> str:
        return str(self.home if self.name is None else self.home / self.name)

    @property
    def keeps_parts(self) -> bool:
        """Whether it is a folder that keeps its parts."""
        return self.name is None

    @property
    def file(self) -> Stored:
        """The Parquet file: the output itself, or what a CSV, JSON lines or Excel file is made of, beside it."""
        if self.name is None:
            raise AssertionError("a folder of parts has no file")
        return Stored(self.home, f"{self.name}.parquet" if is_rendered(self.name) else self.name)

    @property
    def folder(self) -> Store:
        """Where the parts lie."""
        return self.home if self.name is None else self.home / f"{self.name}.parts"

    @property
    def finished(self) -> Stored:
        """What exists once the output is whole."""
        return Stored(self.home, SUCCESS if self.name is None else self.name)

    def render(self) -> None:
        """Write the output from its Parquet file, if that is not the output itself.

        Raises:
            OutputError: it cannot be written, or cannot hold so many rows.
        """
        if self.name is not None and is_rendered(self.name):
            render(self.file, self.finished)

    def part_files(self) -> list[Stored]:
        """The parts that there are, oldest first."""
        return matching(self.folder, PARTS)

    def tables(self) -> list[Stored]:
        """Parquet files of the finished output, in order."""
        return self.part_files() if self.keeps_parts else [self.file]

    def is_started(self) -> bool:
        """Whether an earlier run left an unfinished output."""
        if self.keeps_parts:
            return self.finished.size() is None and bool(self.part_files())
        return self.folder.is_there()


def open_store(folder: str) -> Store:
    """The store of a folder's path or URL.

    Raises:
        StoreError: an object store is not configured.
    """
    if is_url(folder):
        from ser_batch.output.object_store import ObjectStore

        return ObjectStore(folder)
    return LocalStore(folder)


def check_output(out: Output, *, overwrite: bool = False, resume: bool = False, can_be_resumed: bool = True) -> None:
    """Refuse an output that cannot be written or must not be replaced; changes nothing.

    Args:
        can_be_resumed: whether what writes it can go on with it, so that the error may say so.

    Raises:
        OutputError: says which, and what to do.
        StoreError: an object store is away, refuses the keys or lacks the bucket.
    """
    out.home.check(may_be_made=out.keeps_parts)
    exists = out.finished.size() is not None or (not out.keeps_parts and out.file.size() is not None)
    if out.name is not None and (is_rendered(out.name) or not (exists or out.is_started())):
        check_ending(out.name)
    if overwrite or resume:
        if exists and not out.keeps_parts and out.file.size() is None:
            raise OutputError(
                f"{out} exists and {out.file} does not, so it is neither replaced nor resumed",
                remedy="Choose another --out, or delete it yourself.",
            )
        there = out.part_files()[:1] if out.keeps_parts else [out.file] if exists else []
        for file in there:
            _check_ours(file)
        return
    if out.is_started():
        raise OutputError(
            f"{out} is unfinished: {out.folder} holds the parts of an earlier run",
            remedy="Go on with it: --resume; or start anew: --overwrite.",
        )
    if exists:
        raise OutputError(
            f"{out if out.finished.size() is not None else out.file} exists already",
            remedy="Choose another --out, "
            + ("add what is new: --resume, " if can_be_resumed else "")
            + "or replace it: --overwrite.",
        )


def _check_ours(file: Stored) -> None:
    """Keep a slip such as `--out speech.wav --overwrite` from costing a recording, or a dataset."""
    if file.start(4) not in (b"PAR1", b""):
        raise OutputError(f"{file} exists and is no Parquet file, so it is neither replaced nor resumed")
    try:
        metadata = pq.read_schema(file.source()).metadata or {}
    except (OSError, pa.ArrowException):
        # Damaged, so that there is nothing to lose.
        return
    if not any(key.startswith(NAMESPACE.encode()) for key in metadata):
        raise OutputError(
            f"{file} exists and was not made by ser-batch, so it is neither replaced nor resumed",
            remedy="Choose another --out, or delete it yourself.",
        )
