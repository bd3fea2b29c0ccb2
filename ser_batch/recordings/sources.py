"""Which recordings a run takes, under which names, in which order."""

# ruff: noqa: PTH112
# Plain strings, since a Path for each file is felt at a hundred thousand of them.

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from ser_batch.errors import InputError
from ser_batch.recordings.local import READABLE, expand, is_pattern, walk
from ser_batch.recordings.names import Names
from ser_batch.storage.urls import is_url
from ser_batch.text import printable

__all__ = ["Source", "Sources", "find_audio", "printable"]


@dataclass(frozen=True, slots=True)
class Source:
    """One recording of a run."""

    path: str
    """Where it is, or its URL; undecodable bytes are kept as Python keeps them (surrogateescape)."""
    file: str
    """Its name in the table: valid UTF-8, `/` between folders."""
    id: str = ""
    """What it is known by, unique in the run, where `file` is not enough; empty: `file`."""
    span: tuple[float, float] | None = None
    """Seconds of the file that are the recording; None: all."""
    row: int = -1
    """Its row in a table of recordings."""
    version: tuple[int, int] | None = None
    """Size in bytes and modification time in ns, as a listing of objects had them; None: to be asked for."""

    @property
    def key(self) -> str:
        """What it is known by, unique in the run."""
        return self.id or self.file


class Sources(Sequence[Source]):
    """Recordings that are made as they are iterated over; an index walks there, so iterate where it matters."""

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> list[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | list[Source]:
        return list(self)[index]


def find_audio(roots: Sequence[str | os.PathLike[str]]) -> Sequence[Source]:
    """List the recordings under `roots`: folders, searched recursively, single files, and globs (`a/**/*.wav`).

    Each may be in an object store: a prefix (`s3://bucket/a/`), an object or a glob of them; see `find_objects`.

    Roots keep the order given; within one the order is that of the names, byte by byte. With one root, `file` is
    relative to it (to the part before the first wildcard of a glob); with several, each `file` starts with its
    root as given, so that equal names never collide and no name depends on what else a folder holds. A recording
    reached twice under one name is listed once.

    Files and folders whose name starts with a dot are left out unless named themselves (macOS writes a
    `._x.wav` beside each `x.wav`). Links are followed; a folder that a link reaches again is searched once,
    so loops end. What has an audio ending and is no readable file (a pipe, a broken link) is listed too, as
    is a folder that cannot be opened: they become error rows when they are read.

    Raises:
        InputError: a root does not exist, no audio was found, or two names are equal once escaped.
        StoreError: an object store is away, refuses the keys or lacks the bucket.
    """
    sources = _Found([_listing(os.fspath(root)) for root in roots], prefixed=len(roots) > 1)
    if not len(sources):
        raise InputError(
            "no audio found",
            got=", ".join(repr(os.fspath(root)) for root in roots) or "no path",
            expected=f"a recording, or a folder that holds files ending in {', '.join(READABLE)}",
        )
    return sources


class _Listing(NamedTuple):
    """The names under one root, held end to end: a listing must not grow with the square of anyone's archive."""

    base: str
    names: Names
    sizes: array[int] | None = None
    """And `times`: the versions, if the listing has them."""
    times: array[int] | None = None

    def version(self, number: int) -> tuple[int, int] | None:
        """Size and modification time of a name, if known."""
        return None if self.sizes is None or self.times is None else (self.sizes[number], self.times[number])


def _listing(root: str) -> _Listing:
    if is_url(root):
        # Imported here: runs over folders need nothing of it.
        from ser_batch.recordings.remote import find_objects

        objects = find_objects(root)
        return _Listing(objects.base, Names(objects.names), objects.sizes, objects.times)
    base, names = _names_under(root)
    names.sort()
    return _Listing(base, Names(names))


def _names_under(root: str) -> tuple[str, list[bytes]]:
    """(folder, names relative to it) of the recordings under one root."""
    if os.path.isdir(root):
        return root, [os.fsencode(name) for name in walk(root)]
    if os.path.lexists(root):
        folder, name = os.path.split(root)
        return folder, [os.fsencode(name)]
    if is_pattern(root):
        base, names = expand(root)
        return base, [os.fsencode(name) for name in names]
    raise InputError(f"{root!r} does not exist", remedy="Check the path, and quote it if it holds spaces.")


class _Found(Sources):
    """The recordings found, as a sequence that holds only their names."""

    def __init__(self, found: list[_Listing], *, prefixed: bool) -> None:
        self._found, self._prefixed = found, prefixed
        # Only several roots, and names that had to be escaped, can lead to one name twice.
        self._left_out = self._repeated() if prefixed or self._has_escaped() else frozenset()

    def __len__(self) -> int:
        return sum(len(each.names) for each in self._found) - len(self._left_out)

    def __iter__(self) -> Iterator[Source]:
        for number, source in enumerate(self._all()):
            if number not in self._left_out:
                yield source

    def _all(self) -> Iterator[Source]:
        for listing in self._found:
            for number, name in enumerate(listing.names):
                relative = os.fsdecode(name)
                remote = is_url(listing.base)
                # What a key is made of is its own business: an empty part is one.
                path = f"{listing.base}/{relative}" if remote else os.path.join(listing.base, relative)  # noqa: PTH118
                whole = path if remote else os.path.normpath(path)
                yield Source(path, printable(whole if self._prefixed else relative), version=listing.version(number))

    def _has_escaped(self) -> bool:
        return any(not _is_utf8(name) for each in self._found for name in each.names)

    def _repeated(self) -> frozenset[int]:
        """Numbers of recordings that came before under the same name.

        Raises:
            InputError: two recordings have one name.
        """
        first: dict[str, str] = {}
        repeated = []
        for number, source in enumerate(self._all()):
            other = first.setdefault(source.file, source.path)
            if other is source.path:
                continue
            if other != source.path and os.path.realpath(other) != os.path.realpath(source.path):
                raise InputError(
                    "two recordings have one name in the table",
                    got=f"{other!r} and {source.path!r}, both {source.file!r}",
                    remedy="Rename one of them.",
                )
            repeated.append(number)
        return frozenset(repeated)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
