"""Names of recordings in folders and behind globs: the only file that walks folders."""

# ruff: noqa: PTH116, PTH122, PTH207
# Plain strings and scandir, since a Path for each file is felt at a hundred thousand of them.

from __future__ import annotations

import glob
import os
import stat
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from ser_batch.files import open_to_read
from ser_batch.formats import ENDINGS, HEAD, OTHERS, ending_of, identify

LeftOut = Counter[str]
"""Ending -> files of a folder that were not taken."""


def is_pattern(path: str) -> bool:
    """Whether `path` has the wildcards `*`, `?` or `[…]`."""
    return glob.has_magic(path)


def expand(pattern: str, left_out: LeftOut) -> tuple[str, Iterator[str]]:
    """(folder, names relative to it) of what a glob matches; `**` stands for any number of folders.

    A file is taken as it is inside a folder, or if the pattern names an ending itself. What has brackets in its name
    and is there is meant by that name.
    """
    base = fixed_part(pattern)
    chosen = os.path.splitext(pattern)[1] and not glob.has_magic(os.path.splitext(pattern)[1])
    rest = os.path.relpath(pattern, base or os.curdir)
    names = glob.iglob(rest, root_dir=base or None, recursive=True)
    files = (name for name in names if not Path(base, name).is_dir())
    return base, (name for name in files if chosen or is_audio(name, os.path.join(base, name), left_out))  # noqa: PTH118


def fixed_part(pattern: str) -> str:
    """The folders of a glob before its first wildcard; brackets in the name of a folder that is there are none."""
    fixed = Path()
    for part in Path(pattern).parts:
        if glob.has_magic(part) and not (fixed / part).is_dir():
            break
        fixed /= part
    return "" if fixed == Path() else str(fixed)


def walk(root: str, left_out: LeftOut) -> Iterator[str]:
    """Names of the recordings in a folder, relative to it, in no particular order; see `find_recordings`.

    Args:
        left_out: counts the files that are not taken.
    """
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
                for entry in entries:
                    if not _is_folder(entry) and is_audio(entry.name, entry.path, left_out):
                        yield _join(relative, entry.name)
        except OSError:
            yield relative or Path(folder).name
            continue
        for name, linked in sorted(inside):
            # Real folders are searched before linked ones, so that a recording keeps its own name where a link
            # leads to the same folder.
            (folders.appendleft if linked else folders.append)((os.path.join(folder, name), _join(relative, name)))  # noqa: PTH118


def _join(relative: str, name: str) -> str:
    return f"{relative}/{name}" if relative else name


def is_audio(name: str, path: str, left_out: LeftOut) -> bool:
    """Whether a file is taken for a recording inside a folder: by its ending, or by what it holds.

    Args:
        left_out: counts it if it is not; what is hidden, or is a folder, is nobody's.
    """
    if os.path.basename(name).startswith("."):  # noqa: PTH119
        return False
    ending = ending_of(name)
    if ending in ENDINGS or (ending not in OTHERS and _holds_audio(path)):
        return True
    if not os.path.isdir(path):  # noqa: PTH112
        left_out[ending] += 1
    return False


def _holds_audio(path: str) -> bool:
    try:
        descriptor = open_to_read(path)
    except (OSError, ValueError):
        return False
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return regular and bool(identify(os.read(descriptor, HEAD)))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder to search: one that is not hidden."""
    try:
        return not entry.name.startswith(".") and entry.is_dir()
    except OSError:
        # A link to itself, for one.
        return False
