"""Which recordings a run takes, under which names, in which order: the only file that walks folders."""

# ruff: noqa: PTH
# Plain strings and scandir: names need not be UTF-8, and a Path each is felt at a hundred thousand files.

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_batch.errors import InputError

EXTENSIONS = frozenset(
    ".wav .wave .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .snd .caf .w64 .rf64 .sph .nist .voc .avr .pvf .ircam"
    # Audio that libsndfile cannot read: listed all the same, so that each is an error row and none is
    # silently skipped.
    " .m4a .mp4a .aac .wma .amr .ac3 .webm .mka .ape .wv .dsf".split()
)
"""File name endings (lower case) taken as audio inside a folder; a file named by itself is always taken."""


@dataclass(frozen=True)
class Source:
    """One recording of a run."""

    path: str
    """Where it is; undecodable bytes are kept as Python keeps them (surrogateescape)."""
    file: str
    """Its name in the table: valid UTF-8, `/` between folders, unique in the run."""


def find_audio(roots: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """List the recordings under `roots` (folders, searched recursively, and single files) in a stable order.

    Roots keep the order given; within a folder the order is that of the names. With one root, `file` is
    relative to it; with several, each `file` starts with its root as given, so equal names never collide and a
    name does not depend on what else a folder holds. A recording reached twice under one name is listed once.

    Files and folders whose name starts with a dot are left out unless named themselves (macOS writes a
    `._x.wav` beside each `x.wav`). Links are followed; a folder reached again by a link is searched once, so loops
    end. What has an audio ending and turns out to be no readable file (a pipe, a broken link, a folder that
    cannot be opened) is listed too, and becomes an error row when it is read.

    Raises:
        InputError: a root does not exist, no audio was found, or two names are equal once escaped.
    """
    found: dict[str, Source] = {}
    for root in roots:
        base = os.path.normpath(os.fspath(root))
        prefix = base if len(roots) > 1 else ""
        for path, relative in _walk_root(base):
            source = Source(path, printable(os.path.join(prefix, relative) if relative else prefix))
            if (other := found.setdefault(source.file, source)).path != path:
                raise InputError(
                    "two recordings have one name in the table",
                    got=f"{other.path!r} and {path!r}, both {source.file!r}",
                    remedy="Rename one of them.",
                )
    if not found:
        raise InputError(
            "no audio found",
            got=", ".join(repr(os.fspath(root)) for root in roots) or "no path",
            expected=f"a recording, or a folder that holds files ending in {', '.join(sorted(EXTENSIONS))}",
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
        raise InputError(
            f"{root!r} does not exist", remedy="Check the path, and quote it if it holds spaces."
        )


def _walk(root: str) -> Iterator[tuple[str, str]]:
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (identity := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield folder, os.path.relpath(folder, root)
            continue
        # Real folders are searched before linked ones, so that a recording keeps its own name where a link
        # leads to the same folder.
        below = [entry for entry in visible if entry.is_dir()]
        folders[:0] = [entry.path for entry in below if entry.is_symlink()]
        folders += [entry.path for entry in below if not entry.is_symlink()]
        for entry in visible:
            if not entry.is_dir() and os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield entry.path, os.path.relpath(entry.path, root)
