"""Recordings to samples: decode with libsndfile, mix down to mono, resample with soxr, cut the clip.

Training and serving both read with `read_clip`, so that they hear the same samples. Only as much of a file is
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
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ser_batch.clip import ClipRule, Waveform, cut
from ser_batch.container import check_complete
from ser_batch.errors import AudioError
from ser_batch.sources import Source, find_audio, printable

__all__ = ["Clip", "Recording", "Source", "find_audio", "read_clip", "read_recording"]

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hz of the recordings accepted."""
CONTEXT = 0.25
"""Seconds decoded past a clip to resample: its filter then sees what it sees in the whole recording."""
BLOCK_SAMPLES = 1 << 18
"""Samples, of all channels, decoded at a time: neither a header's length nor its channels allocate more."""
MAX_PEAK = 1e6
"""Largest magnitude taken for a sample; integer-scaled floats (32768) pass, damage (1e30) does not."""


@dataclass(frozen=True)
class Recording:
    """A whole recording, mono."""

    samples: Waveform
    """(n,) float32, at the rate asked for."""
    source_rate: int
    """Hz of the file."""
    channels: int
    """Channels of the file, before the mix-down."""
    duration: float
    """Seconds of the file."""


@dataclass(frozen=True)
class Clip:
    """The stretch of a recording that the model hears."""

    waveform: Waveform
    """(rule.samples,) float32 at the rule's rate, zeros past the end of a short recording."""
    start: float
    """Seconds into the recording where the clip begins."""
    end: float
    """Seconds into the recording where the sound heard ends; never past `duration`."""
    duration: float
    """Seconds of the whole recording, by what was decoded or, for a longer one, by its header."""
    sample_rate: int
    """Hz of the file."""
    channels: int
    """Channels of the file, before the mix-down."""


def read_recording(path: str | os.PathLike[str], sample_rate: int) -> Recording:
    """Decode a whole recording to mono at `sample_rate` Hz (mean of the channels, soxr HQ).

    Raises:
        AudioError: see `read_clip`.
    """
    with _opened(path) as (sound, descriptor):
        frames = _decode(sound, descriptor)
        rate, channels = sound.samplerate, sound.channels
        samples = _resample(frames, rate, sample_rate)
    return Recording(samples, rate, channels, len(frames) / rate)


def read_clip(path: str | os.PathLike[str], rule: ClipRule) -> Clip:
    """Decode the one clip of a recording; equal to `cut` of the whole recording to float rounding (2e-7).

    Raises:
        AudioError: not a readable regular file, not audio, a rate outside 4 to 192 kHz, no frames, over 20 ms
            shorter than its header says (5 % for an MP3, whose header is an estimate), or samples among those
            decoded that are NaN, infinite or beyond 1e6.
    """
    with _opened(path) as (sound, descriptor):
        rate = sound.samplerate
        exact = rate == rule.sample_rate
        # One frame more than a clip tells whether the recording is longer than a clip, which is all that
        # the rule asks of its length; the header is not needed for it.
        wanted = math.ceil((rule.offset + rule.seconds + (0 if exact else CONTEXT)) * rate) + 1
        frames = _decode(sound, descriptor, wanted)
        # A header may promise less than there is: what was decoded counts, too.
        total = len(frames) if len(frames) < wanted else max(sound.frames, wanted)
        channels = sound.channels
    samples = _resample(frames, rate, rule.sample_rate)
    start = rule.start(len(samples)) / rule.sample_rate
    duration = total / rate
    return Clip(cut(samples, rule), start, min(start + rule.seconds, duration), duration, rate, channels)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """Open a regular file, with its descriptor; every failure becomes an AudioError that names the file."""
    name = printable(Path(path).name)
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _check_file(os.fstat(descriptor))
            # By descriptor, since a path would let the file's ending choose the format.
            with soundfile.SoundFile(descriptor, closefd=False) as sound:
                _check_rate(sound.samplerate)
                yield sound, descriptor
        finally:
            os.close(descriptor)
    except AudioError as error:
        raise AudioError(
            f"{name!r} {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name!r} cannot be decoded", got=error.error_string.rstrip(". ")) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{name!r} cannot be read", got=reason) from error


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AudioError("is not a regular file")
    if status.st_size == 0:
        raise AudioError("is empty", got="0 bytes")


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("has a rate out of range", got=f"{rate} Hz", expected=f"{MIN_RATE} to {MAX_RATE} Hz")


def _decode(sound: soundfile.SoundFile, descriptor: int, wanted: float = math.inf) -> Waveform:
    """Decode the first `wanted` frames, or all there are, to mono (n,) float32, and check them."""
    block = max(1, BLOCK_SAMPLES // sound.channels)
    parts: list[Waveform] = []
    got = 0
    while got < wanted:
        frames = sound.read(int(min(block, wanted - got)), "float32", always_2d=True)
        if not len(frames):
            break
        parts.append(_mono(frames))
        got += len(frames)
    if not got:
        raise AudioError("holds no audio", got="0 frames")
    check_complete(sound, descriptor, got, ended=got < wanted)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _mono(frames: Waveform) -> Waveform:
    """Mean over the channels of (n, channels), as (n,)."""
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
