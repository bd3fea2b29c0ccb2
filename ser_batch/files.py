"""Files that have their name only once they are whole: written beside it, synced, then renamed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ser_batch.errors import OutputError

Content = bytes | str | Callable[[BinaryIO], object]
"""What a file holds, or a function that writes it to the open file."""


def write_atomically(path: Path, content: Content, *, temporary_folder: Path | None = None) -> None:
    """Make or replace `path`: whoever reads it, or comes after a crash, finds the old file or the new one.

    The temporary file beside it has a hidden name of its own (`temporary_pattern`), so that two processes that
    write one file do not disturb each other: the last one wins.

    Args:
        temporary_folder: another folder of the same file system for it, where a crash may leave no file beside `path`.

    Raises:
        OSError: it cannot be written; `path` is then what it was.
    """
    temporary = (temporary_folder or path.parent) / f".{path.name}.{os.urandom(4).hex()}.tmp"
    try:
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def writing(name: object) -> Iterator[None]:
    """Raise OutputError, which names the file or stream, where an OSError says that it cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written", got=error.strerror or error) from error


def temporary_pattern(name: str) -> str:
    """A pattern (fnmatch) of the files that a killed process may have left half-written beside `name`."""
    return f".{name}*.tmp"


def write_json(path: Path, content: Any) -> None:
    """Make or replace `path` by `content` as indented JSON; see `write_atomically`.

    Raises:
        OSError: it cannot be written.
        ValueError: `content` holds NaN or infinity.
    """
    write_atomically(path, json_text(content))


def json_text(content: Any) -> str:
    """`content` as indented JSON; ValueError if it holds NaN or infinity."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_to_read(path: str | os.PathLike[str]) -> int:
    """A descriptor to read bytes of `path`; of a named pipe, without waiting for its writer."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def lock(file: IO[bytes] | int, *, wait: bool) -> None:
    """Lock an open file for this process alone, until it is closed, however the process ends.

    Raises:
        BlockingIOError: another has locked it, and `wait` is False.
        OSError: the file system has no locks.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                # LK_LOCK waits for ten seconds.
                if not wait:
                    raise BlockingIOError(*error.args) from error
            else:
                return
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
