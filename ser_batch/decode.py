"""The decode stage: sources in, clips or reasons out, in the same order, whatever the number of workers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ser_batch.audio import Clip, read_clip
from ser_batch.clip import ClipRule
from ser_batch.errors import AudioError
from ser_batch.sources import Source

ABSENT = (-1, -1)
"""The version of a source that cannot be asked for its size and time."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What became of one source: a clip, or the reason why there is none."""

    source: Source
    version: tuple[int, int]
    """Size in bytes and modification time in ns, taken before reading."""
    clip: Clip | None
    error: str | None


def source_version(source: Source) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a source: what tells that it has changed."""
    try:
        status = os.stat(source.path)  # noqa: PTH116 — names need not be UTF-8
    except (OSError, ValueError):
        return ABSENT
    return status.st_size, status.st_mtime_ns


def decode(source: Source, rule: ClipRule) -> Decoded:
    """Read the clip of one source; whatever is wrong with it becomes its `error`, never an exception."""
    version = source_version(source)
    try:
        return Decoded(source, version, read_clip(source.path, rule), None)
    except AudioError as error:
        return Decoded(source, version, None, str(error))
    except Exception as error:
        # One file must not end a run of a hundred thousand; the row names the surprise.
        return Decoded(source, version, None, f"unexpected {type(error).__name__}: {error!r}")


def decode_all(sources: Iterable[Source], rule: ClipRule, *, workers: int, ahead: int) -> Generator[Decoded]:
    """Decode in `workers` threads (libsndfile and soxr release the GIL), in the order of `sources`.

    At most `ahead` clips wait to be taken, which bounds the memory. Closing the iterator stops the workers.
    """
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(decode, source, rule))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
