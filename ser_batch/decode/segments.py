"""One recording to its segments, or to the reason why there are none."""

from __future__ import annotations

from collections.abc import Iterator

from ser_batch.audio.reader import Clip
from ser_batch.audio.windows import read_segments
from ser_batch.clips import Segmentation, Waveform
from ser_batch.errors import AudioError, StoreError
from ser_batch.recordings.recording import FACTS, Recording, Segment, Version, current_version, failed


def decode(
    recording: Recording, segmentation: Segmentation, descriptor: int | None = None
) -> Iterator[tuple[Segment, Waveform | None]]:
    """Read one recording, segment by segment; whatever is wrong with it becomes its last row, never an exception.

    What is wrong with an object store is wrong with no recording, and is raised.

    Args:
        descriptor: of the recording's file, if it is no file by itself; it is closed.

    Yields:
        a segment, and the waveform to score for it (None: nothing to score).

    Raises:
        StoreError: the recording is in an object store that is away.
    """
    version = current_version(recording)
    if recording.problem:
        yield failed(recording, version, recording.problem), None
        return
    # A segment is the last one only if nothing follows it, not even an error: so each waits for the next.
    waiting: Clip | None = None
    reason = ""
    try:
        for clip in _clips(recording, segmentation, descriptor):
            if waiting is not None:
                yield segment_of(recording, version, segmentation, waiting, last=False)
            waiting = clip
    except StoreError:
        raise
    except AudioError as error:
        reason = error.reason
    except Exception as error:
        # One file must not end a run of a hundred thousand; the row names the surprise.
        reason = f"unexpected {type(error).__name__}: {error!r}"
    if waiting is not None:
        yield segment_of(recording, version, segmentation, waiting, last=not reason)
    if reason or waiting is None:
        yield failed(recording, version, reason or "holds no audio"), None


def _clips(recording: Recording, segmentation: Segmentation, descriptor: int | None) -> Iterator[Clip]:
    # Of audio inside a table, errors name the recording and not the table.
    path = recording.path if descriptor is None else recording.name
    return read_segments(path, segmentation, span=recording.span, descriptor=descriptor)


def segment_of(
    recording: Recording, version: Version, segmentation: Segmentation, clip: Clip, *, last: bool
) -> tuple[Segment, Waveform | None]:
    """A clip of a recording as a segment, and the waveform to score for it (None: nothing to score)."""
    window = clip.is_window or segmentation.window is not None
    status = segmentation.status(clip.end - clip.start, clip.level, window=window)
    facts = {name: getattr(clip, name) for name in FACTS}
    segment = Segment(recording, version, status, None, last, **facts, segments=int(status == "ok"))
    return segment._replace(is_window=clip.is_window), clip.waveform if status == "ok" else None
