"""A recording that is to be scored, and a segment of it that has been decoded: everything but the samples."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    from concurrent.futures import Future

Version = tuple[int, int]
"""Size in bytes and modification time in ns: what tells that a file has changed."""
UNKNOWN_VERSION = (-1, -1)
"""The version of a recording that cannot be asked for its size and time."""
QUERIES = 16
"""Objects whose versions are asked for at a time."""
WAITING = 256
"""Recordings that may wait for the version of the one whose turn it is."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of a run."""

    path: str
    """Where it is, or its URL; undecodable bytes are kept as Python keeps them (surrogateescape)."""
    name: str
    """What the column `file` of the predictions says: valid UTF-8, `/` between folders."""
    id: str = ""
    """What it is known by, unique in the run, where `name` is not enough; empty: `name`."""
    span: tuple[float, float] | None = None
    """Seconds of the file that are the recording, up to infinity for its end; None: all."""
    row: int = -1
    """Its row among the run's recordings."""
    version: Version | None = None
    """As a listing of objects had it; None: to be asked for."""
    embedded: int = -1
    """Its row among the audio that Parquet files hold; -1: it is a file of its own."""
    problem: str = ""
    """Why it cannot be read, if its table says so: a cell that makes no sense; empty: nothing is known against it."""

    @property
    def key(self) -> str:
        """What it is known by, unique in the run."""
        return self.id or self.name


class Segment(NamedTuple):
    """What is known of a segment of a recording, or why there is none: a row of the predictions without its scores."""

    recording: Recording
    version: Version
    """Of the recording, taken before it was read."""
    status: str
    """"ok": to be scored; "silent", "short": not to be; "error"."""
    error: str | None = None
    last: bool = True
    """Whether it is the last of its recording."""
    start: float | None = None
    """Seconds into the recording where the segment begins; this and what follows is None in a row with an error."""
    end: float | None = None
    """Seconds into the recording where its sound ends; never past `duration`."""
    duration: float | None = None
    """Seconds of the whole recording."""
    sample_rate: int | None = None
    """Hz of the file."""
    channels: int | None = None
    """Channels of the file."""
    level: float | None = None
    """dBFS (RMS) of the sound from start to end."""
    bandwidth: float | None = None
    """Hz up to which there is sound from start to end; None: there is none."""
    clipped: float | None = None
    """Share of its samples that are at full scale or beyond."""
    channel: int | None = None
    """The number of the one channel that it is, from 1 on; None: the mix of all."""
    decoder: str | None = None
    """What decoded it: "libsndfile", "ffmpeg"."""
    segments: int | None = None
    """How many clips its scores are the mean of."""
    is_window: bool = False
    """Whether it is one of the windows over a long recording that make one row."""


FACTS = Segment._fields[Segment._fields.index("start") : Segment._fields.index("decoder") + 1]
"""What is known of a segment that was decoded."""


def failed(recording: Recording, version: Version, reason: str) -> Segment:
    """The row of a recording that cannot be read, or not any further."""
    return Segment(recording, version, "error", reason)


def current_version(recording: Recording) -> Version:
    """Size in bytes and modification time in ns of a recording, or `UNKNOWN_VERSION`.

    Raises:
        StoreError: it is in an object store that is away.
    """
    if recording.version is not None:
        return recording.version
    if recording.problem:
        return UNKNOWN_VERSION
    try:
        if is_url(recording.path):
            from ser_batch.storage.objects import object_version

            return object_version(recording.path) or UNKNOWN_VERSION
        status = os.stat(recording.path)  # noqa: PTH116 — names need not be UTF-8
    except (OSError, ValueError):
        return UNKNOWN_VERSION
    return status.st_size, status.st_mtime_ns


def with_versions(recordings: Iterable[Recording]) -> Iterator[Recording]:
    """The same recordings in the same order; those in object stores have their versions, many asked for at a time.

    Raises:
        StoreError: an object store is away.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    def asked(recording: Recording) -> Recording:
        return replace(recording, version=current_version(recording))

    def answer(held: Recording | Future[Recording]) -> Recording:
        return held.result() if isinstance(held, Future) else held

    with ThreadPoolExecutor(QUERIES) as threads:
        queue: deque[Recording | Future[Recording]] = deque()
        try:
            for recording in recordings:
                unknown = recording.version is None and is_url(recording.path) and not recording.problem
                queue.append(threads.submit(asked, recording) if unknown else recording)
                # Files have nothing to wait for.
                while queue and (len(queue) > WAITING or isinstance(queue[0], Recording)):
                    yield answer(queue.popleft())
            while queue:
                yield answer(queue.popleft())
        finally:
            for each in queue:
                if isinstance(each, Future):
                    each.cancel()
