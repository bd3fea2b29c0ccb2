"""Which recordings a run takes, under which names, in which order: the only file that walks folders."""

# ruff: noqa: PTH112, PTH116, PTH122
# Plain strings and scandir, since a Path for each file is felt at a hundred thousand of them.

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_batch.errors import InputError

READABLE = (
    *("aif", "aifc", "aiff", "au", "avr", "caf", "flac", "ircam", "mp3", "nist", "oga", "ogg", "opus", "pvf"),
    *("rf64", "snd", "sph", "voc", "w64", "wav", "wave"),
)
# Listed all the same, so that each is an error row and none is silently skipped.
UNREADABLE = ("aac", "ac3", "amr", "ape", "dsf", "m4a", "m4b", "mka", "mp4a", "webm", "wma", "wv")
READABLE = (
    *("aif", "aifc", "aiff", "au", "avr", "caf", "flac", "ircam", "mp3", "nist", "oga", "ogg", "opus", "pvf"),
    *("rf64", "snd", "sph", "voc", "w64", "wav", "wave"),
)
# Listed all the same, so that each is an error row and none is silently skipped.
UNREADABLE = ("aac", "ac3", "amr", "ape", "dsf", "m4a", "m4b", "mka", "mp4a", "webm", "wma", "wv")
EXTENSIONS = frozenset(f".{ending}" for ending in (*READABLE, *UNREADABLE))
"""File name endings (lower case) taken as audio inside a folder; a file named by itself is always taken."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recording of a run."""

    path: str
    """Where it is; undecodable bytes are kept as Python keeps them (surrogateescape)."""
    file: str
    """Its name in the table: valid UTF-8, `/` between folders, unique in the run."""


def find_audio(roots: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """List the recordings under `roots` (folders, searched recursively, and single files) in a stable order.

    Roots keep the order given; within one the order is that of the names. With one root, `file` is relative
    to it; with several, each `file` starts with its root as given, so that equal names never collide and no
    name depends on what else a folder holds. A recording reached twice under one name is listed once.

    Files and folders whose name starts with a dot are left out unless named themselves (macOS writes a
    `._x.wav` beside each `x.wav`). Links are followed; a folder that a link reaches again is searched once,
    so loops end. What has an audio ending and is no readable file (a pipe, a broken link) is listed too, as
    is a folder that cannot be opened: they become error rows when they are read.

    Raises:
        InputError: a root does not exist, no audio was found, or two names are equal once escaped.
    """
    found: dict[str, Source] = {}
    for root in roots:
        for path, relative in _walk_root(os.fspath(root)):
            file = printable(os.path.normpath(path) if len(roots) > 1 else relative)
            other = found.setdefault(file, Source(path, file))
            if other.path != path and os.path.realpath(other.path) != os.path.realpath(path):
                raise InputError(
                    "two recordings have one name in the table",
                    got=f"{other.path!r} and {path!r}, both {file!r}",
                    remedy="Rename one of them.",
                )
    if not found:
        raise InputError(
            "no audio found",
            got=", ".join(repr(os.fspath(root)) for root in roots) or "no path",
            expected=f"a recording, or a folder that holds files ending in {', '.join(READABLE)}",
        )
    return list(found.values())


def printable(path: str) -> str:
    r"""Give `path` as valid UTF-8 with `/` as its separator.

    A path with undecodable bytes has each of them written `\xNN`, and its backslashes doubled.
    """
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _walk_root(root: str) -> Iterator[tuple[str, str]]:
    """Yield (path, path relative to `root`) of each recording under one root, ordered by name."""
    if os.path.isdir(root):
        yield from sorted(_walk(root), key=lambda pair: os.fsencode(pair[1]))
    elif os.path.lexists(root):
        yield root, Path(root).name
    else:
        raise InputError(f"{root!r} does not exist", remedy="Check the path, and quote it if it holds spaces.")


def _walk(root: str) -> Iterator[tuple[str, str]]:
    seen: set[tuple[int, int]] = set()
    folders = deque([(root, "")])
    while folders:
        folder, relative = folders.pop()
        try:
            status = os.stat(folder)
            if (identity := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield folder, relative or Path(folder).name
            continue
        for entry in visible:
            name = f"{relative}/{entry.name}" if relative else entry.name
            if _is_folder(entry):
                # Real folders are searched before linked ones, so that a recording keeps its own name where
                # a link leads to the same folder.
                (folders.appendleft if entry.is_symlink() else folders.append)((entry.path, name))
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield entry.path, name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, for one.
        return False
