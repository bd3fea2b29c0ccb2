"""Recordings to samples: decode, mix down to mono, resample with soxr, cut the clip.

Training and serving both read with `read_clip`, so that they get the same samples. Only as much of a file is
decoded as its clip needs, always from the file's start: so the result equals resampling the whole recording,
whatever the two rates, where seeking would need the resampler's phase at that frame.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import soxr

from ser_batch.audio.channels import Channels
from ser_batch.audio.measure import bandwidth, clipped, level
from ser_batch.audio.sound import Sound, open_sound
from ser_batch.clips import MIX, ClipRule, Waveform, cut
from ser_batch.errors import AudioError

CONTEXT = 0.25
"""Seconds decoded past a clip to resample: its filter then sees what it sees in the whole recording."""
BLOCK_SAMPLES = 1 << 18
"""Samples, of all channels, decoded at a time: neither a header's length nor its channels allocate more."""
SHORTFALL = 0.02
"""Seconds that a recording may end before the span asked of it."""

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
    """Channels of the file."""
    level: float
    """dBFS (RMS) of the sound from start to end."""
    bandwidth: float | None
    """Hz up to which there is sound from start to end; None: there is none."""
    clipped: float
    """Share of the samples from start to end that are at full scale or beyond."""
    channel: int | None
    """The number of the one channel that this is, from 1 on; None: the mix of all."""
    decoder: str
    """What decoded it: "libsndfile", "ffmpeg"."""
    is_window: bool = False
    """Whether it is one of several windows over the recording."""


def read_recording(path: str | os.PathLike[str], sample_rate: int) -> Waveform:
    """Decode a whole recording to mono (n,) float32 at `sample_rate` Hz (mean of the channels, soxr HQ).

    Raises:
        AudioError: see `read_clip`.
    """
    with open_sound(path) as sound:
        frames, _ = _decode(sound, Channels(MIX, sound.channels))
        sound.check_complete(len(frames), ended=True)
        return _resample(frames[:, 0], sound.rate, sample_rate)


def read_clip(
    path: str | os.PathLike[str], rule: ClipRule, *, span: Span | None = None, descriptor: int | None = None
) -> Clip:
    """Decode the one clip of a recording; equal to `cut` of the whole recording to float rounding (2e-7).

    Args:
        span: take this stretch of the file for the recording; the clip's times are still those of the file.
        descriptor: of the file already open, if `path` only names it; it is closed.

    Raises:
        AudioError: not a readable regular file, not audio, a rate outside 4 to 192 kHz, no frames, over 20 ms
            shorter than its header or its span says (for some formats more, see the decoders), or samples among
            those decoded that are NaN, infinite or beyond 1e6.
    """
    with open_sound(path, descriptor) as sound:
        return clips_of(sound, rule, MIX, span)[0]


def clips_of(sound: Sound, rule: ClipRule, channels: str, span: Span | None) -> list[Clip]:
    """The one clip of a recording that is open at its start, as `read_clip`, or that of each channel.

    Args:
        channels: see `ser_batch.clips.Segmentation`.
    """
    rate = sound.rate
    chosen = Channels(channels, sound.channels)
    # The rule asks no more of a recording's length than how far it reaches past the offset and one clip, and one
    # frame more tells whether it goes on; the header is not needed for it.
    context = 0 if rate == rule.sample_rate else CONTEXT
    wanted = math.ceil((rule.offset + rule.seconds + context) * rate) + 1
    if span is None:
        frames, instead = _decode(sound, chosen, wanted)
        ended = len(frames) < wanted
        sound.check_complete(len(frames), ended)
        # A header may promise less than there is: what was decoded counts, too.
        begin, length = 0.0, len(frames) / rate if ended else max(sound.length(), wanted) / rate
        duration = length
    else:
        duration = sound.length() / rate
        asked = seek(sound, span, duration)
        begin, length = span[0], min(span[1], duration) - span[0]
        frames, instead = _decode(sound, chosen, min(wanted, asked))
        if len(frames) < min(wanted, asked):
            check_span(len(frames) / rate, min(length, wanted / rate), begin + len(frames) / rate)
        duration = max(duration, begin + len(frames) / rate)
    clips = []
    for number, column in zip(chosen.numbers, frames.T, strict=True):
        samples = _resample(column, rate, rule.sample_rate)
        first = rule.start(len(samples)) / rule.sample_rate
        start, end = begin + first, min(begin + min(first + rule.seconds, length), duration)
        # What follows is padding.
        waveform, sounding = cut(samples, rule), max(1, round((end - start) * rule.sample_rate))
        facts = measured(waveform[:sounding], rule.sample_rate, sound)
        clips.append(Clip(waveform, start, end, duration, *facts, number or instead, sound.decoder))
    return clips


def measured(samples: Waveform, rate: int, sound: Sound) -> tuple[int, int, float, float | None, float]:
    """Rate and channels of the file, level, bandwidth and clipping of `samples` (n,) at `rate` Hz, as in `Clip`."""
    return sound.rate, sound.channels, level(samples), bandwidth(samples, rate, sound.rate), clipped(samples)


def seek(sound: Sound, span: Span, duration: float) -> int:
    """Go to the start of `span`, which may end at infinity; how many frames it has.

    Args:
        duration: of the recording in seconds.

    Raises:
        AudioError: the recording ends before, or there is nothing in it.
    """
    start, end = span
    if not start < end:
        raise AudioError("has an empty stretch", got=f"{start:g} to {end:g} s", expected="an end after the start")
    if start >= duration or not math.isinf(end):
        check_span(duration - start, end - start, duration)
    first = round(start * sound.rate)
    sound.seek(first)
    return max(1, round(min(end, duration) * sound.rate) - first)


def check_span(held: float, wanted: float, duration: float) -> None:
    """Raise AudioError if a span of `wanted` seconds holds only `held` of a recording that ends at `duration`."""
    if held < wanted - SHORTFALL:
        raise AudioError(
            "ends before the stretch asked for",
            got=f"a recording of {duration:.3f} s, with {max(0.0, held):.3f} s of it",
            expected=f"{wanted:.3f} s" if math.isfinite(wanted) else "a start before its end",
        )


def _decode(sound: Sound, channels: Channels, wanted: float = math.inf) -> tuple[Waveform, int | None]:
    """Decode the next `wanted` frames, or all there are; see `Channels.take` for what is returned."""
    block = max(1, BLOCK_SAMPLES // sound.channels)
    parts: list[Waveform] = []
    got = 0
    instead = None
    while got < wanted:
        frames = sound.read(int(min(block, wanted - got)))
        if not len(frames):
            break
        taken, number = channels.take(frames)
        parts.append(taken)
        instead = instead or number
        got += len(frames)
    if not got:
        raise AudioError("holds no audio", got="0 frames")
    return parts[0] if len(parts) == 1 else np.concatenate(parts), instead


def _resample(samples: Waveform, source_rate: int, rate: int) -> Waveform:
    if source_rate == rate:
        return np.ascontiguousarray(samples)
    resampled: Waveform = soxr.resample(samples, source_rate, rate, quality="HQ")
    return resampled
