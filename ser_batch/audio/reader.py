"""Recordings to samples: decode with libsndfile, mix down to mono, resample with soxr, cut the clip.

Training and serving both read with `read_clip`, so that they get the same samples. Only as much of a file is
decoded as its clip needs, always from the file's start: so the result equals resampling the whole recording,
whatever the two rates, where seeking would need the resampler's phase at that frame.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import soundfile
import soxr

from ser_batch.audio.container import check_complete
from ser_batch.clips import ClipRule, Waveform, cut
from ser_batch.errors import AudioError
from ser_batch.storage.urls import is_url
from ser_batch.text import printable

if TYPE_CHECKING:
    from ser_batch.storage.objects import ObjectFile

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hz of the recordings accepted."""
CONTEXT = 0.25
"""Seconds decoded past a clip to resample: its filter then sees what it sees in the whole recording."""
BLOCK_SAMPLES = 1 << 18
"""Samples, of all channels, decoded at a time: neither a header's length nor its channels allocate more."""
SHORTFALL = 0.02
"""Seconds that a recording may end before the span asked of it."""
MAX_PEAK = 1e6
"""Largest magnitude taken for a sample; integer-scaled floats (32768) pass, damage (1e30) does not."""

Span = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True)
class Clip:
    """A segment of a recording, with its samples: what goes to the engine."""

    waveform: Waveform
    """(rule.samples,) float32 at the rule's rate, zeros past the end of a short recording."""
    start: float
    """Seconds into the recording where the clip begins."""
    end: float
    """Seconds into the recording where its sound ends; never past `duration`."""
    duration: float
    """Seconds of the whole recording, by what was decoded or, for a longer one, by its header."""
    sample_rate: int
    """Hz of the file."""
    channels: int
    """Channels of the file, before the mix-down."""
    level: float
    """dBFS (RMS) of the sound from start to end."""


def read_recording(path: str | os.PathLike[str], sample_rate: int) -> Waveform:
    """Decode a whole recording to mono (n,) float32 at `sample_rate` Hz (mean of the channels, soxr HQ).

    Raises:
        AudioError: see `read_clip`.
    """
    with opened(path) as (sound, file):
        frames = _decode(sound)
        check_complete(sound, file, len(frames), ended=True)
        return _resample(frames, sound.samplerate, sample_rate)


def read_clip(
    path: str | os.PathLike[str], rule: ClipRule, *, span: Span | None = None, descriptor: int | None = None
) -> Clip:
    """Decode the one clip of a recording; equal to `cut` of the whole recording to float rounding (2e-7).

    Args:
        span: take this stretch of the file for the recording; the clip's times are still those of the file.
        descriptor: of the file already open, if `path` only names it; it is closed.

    Raises:
        AudioError: not a readable regular file, not audio, a rate outside 4 to 192 kHz, no frames, over 20 ms
            shorter than its header or its span says (5 % for an MP3, whose header is an estimate), or samples
            among those decoded that are NaN, infinite or beyond 1e6.
    """
    with opened(path, descriptor) as (sound, file):
        rate, channels = sound.samplerate, sound.channels
        # The rule asks no more of a recording's length than how far it reaches past the offset and one clip, and one
        # frame more tells whether it goes on; the header is not needed for it.
        context = 0 if rate == rule.sample_rate else CONTEXT
        wanted = math.ceil((rule.offset + rule.seconds + context) * rate) + 1
        if span is None:
            frames = _decode(sound, wanted)
            check_complete(sound, file, len(frames), ended=len(frames) < wanted)
            # A header may promise less than there is: what was decoded counts, too.
            begin, length = 0.0, len(frames) / rate if len(frames) < wanted else max(sound.frames, wanted) / rate
            duration = length
        else:
            begin, length = span[0], span[1] - span[0]
            frames = _decode(sound, min(wanted, seek(sound, span)))
            check_span(len(frames) / rate, min(length, wanted / rate))
            duration = max(sound.frames / rate, begin + len(frames) / rate)
    samples = _resample(frames, rate, rule.sample_rate)
    start = rule.start(len(samples)) / rule.sample_rate
    end = begin + min(start + rule.seconds, length)
    waveform = cut(samples, rule)
    start, end = begin + start, min(end, duration)
    return Clip(waveform, start, end, duration, rate, channels, level_of(waveform, end - start, rule.sample_rate))


def level_of(waveform: Waveform, seconds: float, sample_rate: int) -> float:
    """`level` of the first `seconds` of a clip: what follows is padding."""
    return level(waveform[: max(1, round(seconds * sample_rate))])


def level(samples: Waveform) -> float:
    """RMS of `samples` (n,) in dBFS: 0 for a square wave of full scale, minus infinity for digital silence.

    An offset is no sound: their mean does not count.
    """
    if not len(samples):
        return -math.inf
    sound = samples - samples.mean(dtype=np.float64).astype(np.float32)
    power = float(np.dot(sound, sound)) / len(sound)
    return 10 * math.log10(power) if power > 0 else -math.inf


def seek(sound: soundfile.SoundFile, span: Span) -> int:
    """Go to the start of `span`; how many frames it has.

    Raises:
        AudioError: the recording ends before.
    """
    rate: int = sound.samplerate
    first, last = round(span[0] * rate), round(span[1] * rate)
    if first >= sound.frames:
        check_span(sound.frames / rate - span[0], span[1] - span[0])
    sound.seek(first)
    return max(1, last - first)


def check_span(held: float, wanted: float) -> None:
    """Raise AudioError if a span of `wanted` seconds holds only `held`."""
    if held < wanted - SHORTFALL:
        raise AudioError(
            "ends before the stretch asked for", got=f"{max(0.0, held):.3f} s of it", expected=f"{wanted:.3f} s"
        )


def _decode(sound: soundfile.SoundFile, wanted: float = math.inf) -> Waveform:
    """Decode the next `wanted` frames, or all there are, to mono (n,) float32, and check them."""
    block = max(1, BLOCK_SAMPLES // sound.channels)
    parts: list[Waveform] = []
    got = 0
    while got < wanted:
        frames = sound.read(int(min(block, wanted - got)), "float32", always_2d=True)
        if not len(frames):
            break
        parts.append(mono(frames))
        got += len(frames)
    if not got:
        raise AudioError("holds no audio", got="0 frames")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def mono(frames: Waveform) -> Waveform:
    """Mean over the channels of (n, channels), as (n,); AudioError if it is no audio."""
    with np.errstate(invalid="ignore", over="ignore"):
        mono: Waveform = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
        low, high = float(mono.min()), float(mono.max())
    # NaN makes both comparisons false, and min() and max() hand a NaN on.
    if not (low >= -MAX_PEAK and high <= MAX_PEAK):
        raise AudioError("holds samples that are no audio", got=f"values from {low:g} to {high:g}")
    return mono


def _resample(samples: Waveform, source_rate: int, rate: int) -> Waveform:
    if source_rate == rate:
        return np.ascontiguousarray(samples)
    resampled: Waveform = soxr.resample(samples, source_rate, rate, quality="HQ")
    return resampled


@contextmanager
def opened(
    path: str | os.PathLike[str], descriptor: int | None = None
) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    """Open a recording, with the file that it is read from; every failure becomes an AudioError that names its path.

    Args:
        path: of a regular file, or the URL of an object.
        descriptor: of the file already open, if `path` only names it; it is closed.

    Raises:
        AudioError: it cannot be had, or is no audio at a rate within range.
        StoreError: the store of the object is away: nothing is wrong with the recording.
    """
    name = printable(os.fspath(path))
    try:
        if descriptor is None and is_url(path):
            with _from_store(cast(str, path)) as opened_object:
                yield opened_object
        else:
            with _from_disk(path, descriptor) as opened_file:
                yield opened_file
    except AudioError as error:
        raise AudioError(error.what, path=name, got=error.got, expected=error.expected, remedy=error.remedy) from error
    except soundfile.LibsndfileError as error:
        raise AudioError("cannot be decoded", path=name, got=error.error_string.rstrip(". ")) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError("cannot be read", path=name, got=reason) from error


@contextmanager
def _from_disk(path: str | os.PathLike[str], descriptor: int | None) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    if descriptor is None:
        # Without O_NONBLOCK, opening a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is not a regular file")
        _check_size(status.st_size)
        os.lseek(descriptor, 0, os.SEEK_SET)
        # By descriptor, since a path would let the file's ending choose the format.
        with (
            open(descriptor, "rb", buffering=0, closefd=False) as file,
            soundfile.SoundFile(descriptor, closefd=False) as sound,
        ):
            _check_rate(sound.samplerate)
            yield sound, cast(BinaryIO, file)
    finally:
        os.close(descriptor)


@contextmanager
def _from_store(url: str) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    from ser_batch.storage.objects import open_object

    with open_object(url) as file:
        _check_size(file.size)
        try:
            with soundfile.SoundFile(file) as sound:
                _check_rate(sound.samplerate)
                yield sound, cast(BinaryIO, file)
        except (AudioError, soundfile.LibsndfileError):
            _check_read(file)
            raise
        _check_read(file)


def _check_read(file: ObjectFile) -> None:
    """A decoder takes a failed read for the end of the file: what it then says of the recording is not so."""
    if file.failure is not None:
        raise file.failure


def _check_size(size: int) -> None:
    if size == 0:
        raise AudioError("is empty", got="0 bytes")


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("has a rate out of range", got=f"{rate} Hz", expected=f"{MIN_RATE} to {MAX_RATE} Hz")
