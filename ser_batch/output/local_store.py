"""A folder on a disk: files are written under a hidden name, synced, then renamed."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from ser_batch.errors import OutputError
from ser_batch.output.store import LOCK, Fill


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

    def source(self, name: str) -> str:
        """The path of a file."""
        return str(self.root / name)

    def write(self, name: str, fill: Fill) -> None:
        """Write a file under a hidden name, which readers of whole folders pass over; sync and rename it."""
        temporary = self.root / _temporary(name)
        try:
            with temporary.open("wb") as sink:
                fill(sink)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(self.root / name)
            self._sync()
        except Exception:
            with suppress(OSError):
                temporary.unlink()
            raise

    def mark(self, name: str) -> None:
        """Make an empty file."""
        (self.root / name).touch()
        self._sync()

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def clean(self, pattern: str) -> None:
        """Delete files under the hidden names of those of the pattern."""
        for name in self.names():
            if fnmatchcase(name, _temporary(pattern)):
                self.delete(name)

    def lock(self) -> LocalLock:
        """Make the folder and lock it.

        Raises:
            OutputError: another run holds it.
            OSError: it cannot be made.
        """
        return LocalLock(self.root)

    def _sync(self) -> None:
        """Make the names in the folder survive a power cut, too."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LocalLock:
    """A folder locked through a file in it, by the system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = _locked(folder)

    def release(self, *, remove: bool) -> None:
        """Let another run take the folder, or remove it if it is empty."""
        if self._file.closed:
            return
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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _temporary(name: str) -> str:
    return f".{name}.tmp"
