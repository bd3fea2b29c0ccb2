"""Which recordings a run takes, under which names, in which order."""

# ruff: noqa: PTH112, PTH118
# Plain strings, since a Path for each file is felt at a hundred thousand of them.

from __future__ import annotations

import glob
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ser_batch.arrow import numbers, strings
from ser_batch.errors import InputError
from ser_batch.formats import described
from ser_batch.recordings.endings import is_table
from ser_batch.recordings.local import LeftOut, expand, fixed_part, is_pattern, walk
from ser_batch.recordings.table import Recordings, roots
from ser_batch.storage.urls import is_url, join
from ser_batch.text import printable


def find_recordings(
    audio: Sequence[str | os.PathLike[str]],
    shard: tuple[int, int] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Recordings:
    """Find the recordings that the arguments of a run stand for.

    They are folders, searched recursively, single files and globs (`a/**/*.wav`), each of which may be in an object
    store (a prefix `s3://bucket/a/`, an object or a glob of them; see `remote.find_objects`); or nothing but tables
    (see `columns.read_recordings`).

    Folders keep the order given; within one the order is that of the names, byte by byte. With one folder, a name is
    relative to it (to the part before the first wildcard of a glob); with several, each name starts with its folder
    as given, so that equal names never collide and no name depends on what else a folder holds. A recording reached
    twice under one name is listed once.

    In a folder, a file is taken whose ending is that of audio or video, or whose content says so; the others are
    counted. Files and folders whose name starts with a dot are left out unless named themselves (macOS writes a
    `._x.wav` beside each `x.wav`). Links are followed; a folder that a link reaches again is searched once, so loops
    end. What has an audio ending and is no readable file (a pipe, a broken link) is listed too, as is a folder that
    cannot be opened: they become error rows when they are read.

    Args:
        audio: folders, recordings, globs; or tables.
        shard: (i, n): take the i-th of n parts, 1 ≤ i ≤ n, by a hash of the names.
        root: folder or URL that the paths in tables start from; None: each table's own folder.

    Raises:
        InputError: something does not exist, no audio was found, two names are equal once escaped, or tables and
            recordings are given at once.
        StoreError: an object store is away, refuses the keys or lacks the bucket.
    """
    given = [os.fspath(path) for path in audio]
    listed = [table for path in given if _is_table(path) for table in _matching_tables(path)]
    if listed and not all(map(_is_table, given)):
        raise InputError(
            "tables of recordings and recordings are given at once", got=listed[0], remedy="Make two runs of it."
        )
    if root is not None and not listed:
        raise InputError("a root is for tables of recordings", got=", ".join(given), expected="tables")
    if listed:
        # What reads tables takes 1.5 MB, which folders need not pay.
        from ser_batch.recordings.columns import read_recordings

        recordings = read_recordings(listed, None if root is None else os.fspath(root))
    else:
        recordings = _found(given)
    return recordings if shard is None else recordings.shard(*shard)


def _is_table(path: str) -> bool:
    if not is_table(path):
        return False
    if not is_url(path):
        return not Path(path).is_dir()
    from ser_batch.storage.objects import is_prefix

    return not path.endswith("/") and (glob.has_magic(path) or not is_prefix(path))


def _matching_tables(path: str) -> list[str]:
    """The table, or those that a glob matches, in the order of their names."""
    if is_url(path):
        from ser_batch.recordings.remote import matching_objects

        return matching_objects(path) if glob.has_magic(path) else [path]
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    base = fixed_part(path)
    names = glob.iglob(os.path.relpath(path, base or os.curdir), root_dir=base or None, recursive=True)  # noqa: PTH207
    return sorted(os.path.join(base, name) for name in names) or [path]


class _Listing(NamedTuple):
    """What lies under one root: names relative to it, in order, and their versions if the listing has them."""

    root: str
    names: list[bytes]
    sizes: array[int] | None = None
    times: array[int] | None = None


def _found(given: Sequence[str]) -> Recordings:
    left_out: LeftOut = Counter()
    listings = [_listing(root, left_out) for root in given]
    if not any(listing.names for listing in listings):
        raise InputError(
            "no audio found",
            got=(", ".join(map(repr, given)) or "no path") + (f" with {described(left_out)}" if left_out else ""),
            expected="a recording, or a folder that holds some",
        )
    columns = _columns(listings, prefixed=len(given) > 1)
    recordings = Recordings(columns)
    recordings.left_out = dict(left_out)
    # Only several roots, and names that had to be escaped, can lead to one name twice.
    if "path" not in columns:
        return recordings
    again = frozenset(_repeated(recordings))
    return recordings.select([row for row in range(len(recordings)) if row not in again]) if again else recordings


def _listing(root: str, left_out: LeftOut) -> _Listing:
    if is_url(root):
        # Imported here: runs over folders need nothing of it.
        from ser_batch.recordings.remote import find_objects

        objects = find_objects(root, left_out)
        return _Listing(objects.base, objects.names, objects.sizes, objects.times)
    folder, names = _names_under(root, left_out)
    return _Listing(folder, sorted(map(os.fsencode, names)))


def _names_under(root: str, left_out: LeftOut) -> tuple[str, Iterator[str]]:
    """(folder, names relative to it) of the recordings under one root."""
    if os.path.isdir(root):
        return root, walk(root, left_out)
    if os.path.lexists(root):
        folder, name = os.path.split(root)
        return folder, iter([name])
    if is_pattern(root):
        return expand(root, left_out)
    raise InputError(f"{root!r} does not exist", remedy="Check the path, and quote it if it holds spaces.")


def _columns(listings: Sequence[_Listing], *, prefixed: bool) -> dict[str, pa.Array]:
    """The columns of `Recordings`; `path` only where a name is not the whole way from the root."""
    counts = [len(listing.names) for listing in listings]
    homes = np.repeat(np.arange(len(listings), dtype=np.int32), counts)
    columns = {"root": roots(homes, [listing.root for listing in listings])}
    if not prefixed and _plain(listings[0].names, url=is_url(listings[0].root)):
        # Offsets of four bytes, as far as they go.
        small = sum(map(len, listings[0].names)) < 2**31
        columns["name"] = strings(listings[0].names, kind=pa.string() if small else pa.large_string())
    else:
        names = (_shown(listing.root, name, prefixed) for listing in listings for name in listing.names)
        paths = (os.fsencode(_path(listing.root, name)) for listing in listings for name in listing.names)
        columns["name"] = strings(names, kind=pa.large_string())
        columns["path"] = strings(paths, kind=pa.large_binary())
    for column, kept in (("size", "sizes"), ("mtime_ns", "times")):
        versions = [getattr(listing, kept) for listing in listings]
        if any(version is not None for version in versions):
            known = np.repeat([version is not None for version in versions], counts)
            columns[column] = numbers([value for version in versions for value in version or ()], np.int64, known)
    return columns


def _path(root: str, name: bytes) -> str:
    relative = os.fsdecode(name)
    return f"{root}/{relative}" if is_url(root) else os.path.join(root, relative)


def _shown(root: str, name: bytes, prefixed: bool) -> str:
    """The name of a recording, which with several roots starts with its root."""
    if not prefixed:
        return printable(os.fsdecode(name))
    path = _path(root, name)
    return printable(path if is_url(path) else os.path.normpath(path))


def _plain(names: Sequence[bytes], *, url: bool) -> bool:
    """Whether each name is UTF-8, and all that is below the root."""
    return all(name.isascii() or _is_utf8(name) for name in names) and not (
        # What a key is made of is its own business: `..` and empty parts are names there.
        url and any(join("s3://b/r", name.decode()) != f"s3://b/r/{name.decode()}" for name in names)
    )


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _repeated(recordings: Recordings) -> Iterator[int]:
    """Rows of recordings that came before under the same name.

    Raises:
        InputError: two recordings have one name.
    """
    first: dict[str, str] = {}
    for row, recording in enumerate(recordings):
        other = first.setdefault(recording.name, recording.path)
        if other is recording.path:
            continue
        if other != recording.path and os.path.realpath(other) != os.path.realpath(recording.path):
            raise InputError(
                "two recordings have one name in the table",
                got=f"{other!r} and {recording.path!r}, both {recording.name!r}",
                remedy="Rename one of them.",
            )
        yield row
