"""One notion of where output goes: a folder of files, each of which is whole under its name or not there."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = ".lock"
Fill = Callable[[BinaryIO], object]
"""Writes the content of a file."""


class Lock(Protocol):
    """A folder that is one run's; it ends with the process, however that ends."""

    def release(self, *, remove: bool) -> None:
        """Let another run take the folder, or remove it if it is empty; does nothing the second time."""


class Store(Protocol):
    """A folder, on a disk or in an object store; every OSError of it means that a file cannot be had or made."""

    def __str__(self) -> str:
        """Its path or URL."""

    def __truediv__(self, name: str) -> Store:
        """A folder below it."""

    def check(self, *, may_be_made: bool) -> None:
        """Raise OutputError or StoreError if files cannot be made in it."""

    def is_there(self) -> bool:
        """Whether the folder exists."""

    def names(self) -> list[str]:
        """Names of the files in it, in order; none if there is no such folder."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is nothing of that name."""

    def start(self, name: str, count: int) -> bytes | None:
        """The first bytes of a file; None if it is no file."""

    def source(self, name: str) -> str | pa.NativeFile:
        """A file, for pyarrow to read."""

    def write(self, name: str, fill: Fill) -> None:
        """Make or replace a file: it has its name once it is whole and safe."""

    def mark(self, name: str) -> None:
        """Make an empty file."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def clean(self, pattern: str) -> None:
        """Delete what writes of files of such names have left half-made."""

    def lock(self) -> Lock:
        """Make the folder and lock it; OutputError if another run has."""


class Stored(NamedTuple):
    """A file in a store."""

    store: Store
    name: str

    def __str__(self) -> str:
        return str(self.store / self.name)

    def size(self) -> int | None:
        """Bytes; None if there is nothing of that name."""
        return self.store.size(self.name)

    def start(self, count: int) -> bytes | None:
        """The first bytes; None if it is no file."""
        return self.store.start(self.name, count)

    def source(self) -> str | pa.NativeFile:
        """The file, for pyarrow to read."""
        return self.store.source(self.name)

    def delete(self) -> None:
        """Delete it, if it is there."""
        self.store.delete(self.name)


def open_store(folder: str) -> Store:
    """The store of a folder's path or URL.

    Raises:
        StoreError: an object store is not configured.
    """
    if is_url(folder):
        from ser_batch.output.object_store import ObjectStore

        return ObjectStore(folder)
    from ser_batch.output.local_store import LocalStore

    return LocalStore(folder)


def matching(store: Store, pattern: str) -> list[Stored]:
    """The files of a store whose names match, in order."""
    return [Stored(store, name) for name in store.names() if fnmatchcase(name, pattern)]
