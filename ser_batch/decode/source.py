"""One source to what the model is to hear of it, or to the reason why there is nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ser_batch.audio.hearing import Hearing
from ser_batch.audio.recording import Clip, level, read_clip
from ser_batch.audio.windows import read_windows
from ser_batch.clips import Waveform
from ser_batch.errors import AudioError, StoreError
from ser_batch.recordings.sources import Source
from ser_batch.storage.urls import is_url

ABSENT = (-1, -1)
"""The version of a source that cannot be asked for its size and time."""
Version = tuple[int, int]
"""Size in bytes and modification time in ns."""


class Segment(NamedTuple):
    """What was heard, without its samples."""

    start: float
    """Seconds, as in `Clip`."""
    end: float
    duration: float
    sample_rate: int
    channels: int
    level: float
    """dBFS (RMS) of the sound from start to end."""


@dataclass(frozen=True)
class Decoded:
    """A row to be: a segment of one source, or the reason why there is none."""

    source: Source
    version: Version
    """Taken before reading."""
    segment: Segment | None
    status: str
    """"ok": to be scored; "silent", "short": not to be; "error"."""
    error: str | None = None
    last: bool = True
    """Whether it is the last of its source."""


def source_version(source: Source) -> Version:
    """Size in bytes and modification time in ns of a source: what tells that it has changed.

    Raises:
        StoreError: it is in an object store that is away.
    """
    if source.version is not None:
        return source.version
    try:
        if is_url(source.path):
            from ser_batch.storage.objects import object_version

            return object_version(source.path) or ABSENT
        status = os.stat(source.path)  # noqa: PTH116 — names need not be UTF-8
    except (OSError, ValueError):
        return ABSENT
    return status.st_size, status.st_mtime_ns


def failure(source: Source, version: Version, reason: str) -> Decoded:
    """The row of a source that cannot be read (further)."""
    return Decoded(source, version, None, "error", reason)


def decode(
    source: Source, hearing: Hearing, descriptor: int | None = None
) -> Iterator[tuple[Decoded, Waveform | None]]:
    """Read one source, segment by segment; whatever is wrong with it becomes its last row, never an exception.

    What is wrong with an object store is wrong with no source, and is raised.

    Args:
        descriptor: of the recording's file, if it is no file by itself; it is closed.

    Yields:
        a row, and the waveform to score for it (None: nothing to score).

    Raises:
        StoreError: the source is in an object store that is away.
    """
    version = source_version(source)
    held: tuple[Segment, Waveform] | None = None
    try:
        for clip in _clips(source, hearing, descriptor):
            if held is not None:
                yield _row(source, version, hearing, *held, last=False)
            heard = clip.waveform[: max(1, round((clip.end - clip.start) * hearing.clip.sample_rate))]
            times = (clip.start, clip.end, clip.duration)
            held = Segment(*times, clip.sample_rate, clip.channels, level(heard)), clip.waveform
    except StoreError:
        raise
    except AudioError as error:
        reason = str(error)
    except Exception as error:
        # One file must not end a run of a hundred thousand; the row names the surprise.
        reason = f"unexpected {type(error).__name__}: {error!r}"
    else:
        reason = ""
    if held is not None:
        yield _row(source, version, hearing, *held, last=not reason)
    if reason or held is None:
        yield failure(source, version, reason or "holds no audio"), None


def _clips(source: Source, hearing: Hearing, descriptor: int | None) -> Iterator[Clip]:
    # Of audio inside a table, errors name the recording and not the table.
    path = source.path if descriptor is None else source.file
    if hearing.window is not None:
        yield from read_windows(path, hearing, span=source.span, descriptor=descriptor)
    else:
        yield read_clip(path, hearing.clip, span=source.span, descriptor=descriptor)


def _row(
    source: Source, version: Version, hearing: Hearing, segment: Segment, waveform: Waveform, *, last: bool
) -> tuple[Decoded, Waveform | None]:
    status = hearing.status(segment.end - segment.start, segment.level)
    return Decoded(source, version, segment, status, last=last), waveform if status == "ok" else None
