"""Names of recordings in folders and behind globs: the only file that walks folders."""

# ruff: noqa: PTH116, PTH122, PTH207
# Plain strings and scandir, since a Path for each file is felt at a hundred thousand of them.

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

READABLE = (
    *("aif", "aifc", "aiff", "au", "avr", "caf", "flac", "ircam", "mp3", "nist", "oga", "ogg", "opus", "pvf"),
    *("rf64", "snd", "sph", "voc", "w64", "wav", "wave"),
)
# Listed all the same, so that each is an error row and none is silently skipped.
UNREADABLE = ("aac", "ac3", "amr", "ape", "dsf", "m4a", "m4b", "mka", "mp4a", "webm", "wma", "wv")
EXTENSIONS = frozenset(f".{ending}" for ending in (*READABLE, *UNREADABLE))
"""File name endings (lower case) taken as audio inside a folder; a file named by itself is always taken."""


def is_pattern(path: str) -> bool:
    """Whether `path` has the wildcards `*`, `?` or `[…]`."""
    return glob.has_magic(path)


def expand(pattern: str) -> tuple[str, Iterator[str]]:
    """(folder, names relative to it) of what a glob matches; `**` stands for any number of folders.

    A file is taken if its ending is that of audio, or if the pattern names an ending itself.
    """
    fixed = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base = str(Path(*fixed)) if fixed else ""
    chosen = os.path.splitext(pattern)[1] and not glob.has_magic(os.path.splitext(pattern)[1])
    rest = os.path.relpath(pattern, base or os.curdir)
    names = glob.iglob(rest, root_dir=base or None, recursive=True)
    return base, (name for name in names if chosen or is_audio(name) if not Path(base, name).is_dir())


def walk(root: str) -> Iterator[str]:
    """Names of the recordings in a folder, relative to it, in no particular order; see `find_audio`."""
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
                inside = [(entry.name, entry.is_symlink()) for entry in entries if _is_folder(entry)]
            with os.scandir(folder) as entries:
                yield from (_join(relative, e.name) for e in entries if is_audio(e.name) and not _is_folder(e))
        except OSError:
            yield relative or Path(folder).name
            continue
        for name, linked in sorted(inside):
            # Real folders are searched before linked ones, so that a recording keeps its own name where a link
            # leads to the same folder.
            (folders.appendleft if linked else folders.append)((os.path.join(folder, name), _join(relative, name)))  # noqa: PTH118


def _join(relative: str, name: str) -> str:
    return f"{relative}/{name}" if relative else name


def is_audio(name: str) -> bool:
    """Whether a file of that name is taken for audio inside a folder."""
    base = os.path.basename(name)  # noqa: PTH119
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in EXTENSIONS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder to search: one that is not hidden."""
    try:
        return not entry.name.startswith(".") and entry.is_dir()
    except OSError:
        # A link to itself, for one.
        return False
