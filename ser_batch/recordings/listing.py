"""What a run is given: folders, files and globs, or tables that list recordings or hold them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.errors import InputError
from ser_batch.recordings.sources import Source, Sources, find_audio
from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".txt", ".lst")
"""Endings of files that list recordings, one a line or row."""


@dataclass(frozen=True)
class Inputs:
    """The recordings of a run, and what is known of them beforehand."""

    sources: Sequence[Source]
    carried: pa.Table | None = None
    """Columns that are handed through to the predictions; row `Source.row` belongs to a source."""
    key: str = "file"
    """Column of the predictions that tells recordings apart."""
    content: Callable[[Source], bytes | None] = lambda _: None
    """The bytes of a source that is no file of its own."""


def find_inputs(audio: Sequence[str | os.PathLike[str]], shard: tuple[int, int] | None = None) -> Inputs:
    """Find the recordings that the arguments of a run stand for.

    Args:
        audio: folders, recordings and globs (see `find_audio`), or nothing but tables (see `read_table`).
        shard: (i, n): take the i-th of n parts, 1 ≤ i ≤ n, by a hash of the names: what a part holds does not
            depend on what else there is.

    Raises:
        InputError: nothing found, or both kinds at once.
        StoreError: an object store is away, refuses the keys or lacks the bucket.
    """
    tables = [table for path in audio if _is_table(path) for table in _tables(os.fspath(path))]
    if tables and not all(map(_is_table, audio)):
        raise InputError(
            "tables of recordings and recordings are given at once", got=tables[0], remedy="Make two runs of it."
        )
    if tables:
        from ser_batch.recordings.table import read_tables

        inputs = read_tables(tables)
    else:
        inputs = Inputs(find_audio(audio))
    return inputs if shard is None else replace(inputs, sources=_Shard(inputs.sources, *shard))


def _is_table(path: str | os.PathLike[str]) -> bool:
    if Path(path).suffix.lower() not in TABLES:
        return False
    if not is_url(path):
        return not Path(path).is_dir()
    from ser_batch.storage.objects import is_prefix

    url = os.fspath(path)
    return not url.endswith("/") and (glob.has_magic(url) or not is_prefix(url))


def _tables(path: str) -> list[str]:
    """The table, or those that a glob matches, in the order of their names."""
    if is_url(path):
        from ser_batch.recordings.remote import matching_objects

        return matching_objects(path) if glob.has_magic(path) else [path]
    return sorted(glob.iglob(path, recursive=True)) if glob.has_magic(path) and not Path(path).exists() else [path]  # noqa: PTH207


class _Shard(Sources):
    """Every source whose name hashes to one of `count` parts."""

    def __init__(self, sources: Sequence[Source], part: int, count: int) -> None:
        if not 1 <= part <= count:
            raise InputError("there is no such shard", got=f"{part}/{count}", expected="1/N to N/N")
        self._sources, self._part, self._count = sources, part - 1, count
        self._length = sum(1 for _ in self)
        if not self._length:
            raise InputError("no recording falls to this shard", got=f"{part}/{count} of {len(sources)} recordings")

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Source]:
        for source in self._sources:
            digest = blake2b(source.key.encode(), digest_size=8).digest()
            if int.from_bytes(digest, "little") % self._count == self._part:
                yield source
