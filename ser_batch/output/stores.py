"""One notion of where output goes: a folder of files, each of which is whole under its name or not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from ser_batch.errors import OutputError
from ser_batch.files import lock, sync_folder, temporary_pattern, write_atomically
from ser_batch.storage.objects import local_source

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


def matching(store: Store, pattern: str) -> list[Stored]:
    """The files of a store whose names match, in order."""
    return [Stored(store, name) for name in store.names() if fnmatchcase(name, pattern)]


class LocalStore:
    """A folder on a disk; see `Store`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.root = Path(folder)

    def __str__(self) -> str:
        return str(self.root)

    def __truediv__(self, name: str) -> LocalStore:
        return LocalStore(self.root / name)

    def check(self, *, may_be_made: bool) -> None:
        """Raise OutputError if files cannot be made in it."""
        home = self.root.parent if may_be_made and not self.root.exists() else self.root
        if not home.exists():
            raise OutputError(f"{home} is not an existing folder", remedy="Make it, or choose another --out.")
        if not home.is_dir():
            raise OutputError(f"{home} is a file", expected="a folder")
        if not os.access(home, os.W_OK):
            raise OutputError(f"{home} cannot be written", remedy="Choose another --out.")

    def is_there(self) -> bool:
        """Whether the folder exists."""
        return self.root.is_dir()

    def names(self) -> list[str]:
        """Names of the files in it, in order."""
        try:
            return sorted(os.listdir(self.root))  # noqa: PTH208 — names alone
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, name: str) -> int | None:
        """Bytes of a file, or of whatever else has that name."""
        try:
            return (self.root / name).lstat().st_size
        except FileNotFoundError:
            return None

    def start(self, name: str, count: int) -> bytes | None:
        """The first bytes of a file; None if it is no regular one."""
        if not (self.root / name).is_file():
            return None
        with (self.root / name).open("rb") as file:
            return file.read(count)

    def source(self, name: str) -> str | pa.NativeFile:
        """The path of a file, or the file where pyarrow cannot take its path."""
        return local_source(str(self.root / name))

    def write(self, name: str, fill: Fill) -> None:
        """Write a file under a hidden name, which readers of whole folders pass over; sync and rename it."""
        write_atomically(self.root / name, fill)

    def mark(self, name: str) -> None:
        """Make an empty file."""
        (self.root / name).touch()
        sync_folder(self.root)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def clean(self, pattern: str) -> None:
        """Delete files under the hidden names of those of the pattern."""
        for name in self.names():
            if fnmatchcase(name, temporary_pattern(pattern)):
                self.delete(name)

    def lock(self) -> LocalLock:
        """Make the folder and lock it.

        Raises:
            OutputError: another run holds it.
            OSError: it cannot be made.
        """
        return LocalLock(self.root)


class LocalLock:
    """A folder locked through a file in it, by the system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = _locked(folder)

    def release(self, *, remove: bool) -> None:
        """Let another run take the folder, or remove it if it is empty."""
        if self._file.closed:
            return
        if sys.platform == "win32":
            # An open file cannot be deleted there: neither ours nor, if another run was faster, that one's.
            self._file.close()
        with suppress(OSError):
            (self._folder / LOCK).unlink()
        if remove:
            with suppress(OSError):
                self._folder.rmdir()
        self._file.close()


def _locked(folder: Path) -> IO[bytes]:
    while True:
        folder.mkdir(exist_ok=True)
        file = (folder / LOCK).open("wb")
        try:
            lock(file, wait=False)
            # A run that has just ended may have deleted the file that we opened: then it locks nothing.
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return file
            file.close()
        except FileNotFoundError:
            file.close()
        except BlockingIOError as error:
            file.close()
            raise OutputError(
                f"another run is writing to {folder}", remedy="Let it end, or choose another --out."
            ) from error
