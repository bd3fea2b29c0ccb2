"""A long recording as overlapping segments, streamed: memory holds one segment and a second of the file.

Segments start at 0, hop, 2·hop …; the last is the one that reaches the end, and may be shorter than the window.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import soxr

from ser_batch.audio.channels import Channels
from ser_batch.audio.reader import BLOCK_SAMPLES, Clip, Span, check_span, clips_of, measured, seek
from ser_batch.audio.sound import Sound, open_sound
from ser_batch.clips import Segmentation, Waveform, fit
from ser_batch.errors import AudioError

LOUDER = 10.0
"""dB by which a window must be louder than the one clip of a recording to be heard in its place."""


def read_segments(
    path: str | os.PathLike[str], segmentation: Segmentation, *, span: Span | None = None, descriptor: int | None = None
) -> Iterator[Clip]:
    """Decode what is to be scored of a recording: its one clip, or windows, which are streamed.

    Windows are padded with zeros to the clip's length, and equal to resampling the whole recording and cutting it, to
    float rounding. With the channels apart, those of a segment follow each other.

    Raises:
        AudioError: as `read_clip`; of windows, once the damage is reached: those before it are good.
    """
    with open_sound(path, descriptor) as sound:
        yield from segments_of(sound, segmentation, span)


def segments_of(sound: Sound, segmentation: Segmentation, span: Span | None = None) -> Iterator[Clip]:
    """The same of a recording that is open at its start."""
    if segmentation.window is not None:
        yield from _windows(sound, segmentation, span)
    elif segmentation.whole and segmentation.is_long(_seconds(sound, span)):
        for clip in _windows(sound, segmentation, span):
            yield replace(clip, is_window=True)
    else:
        clips = clips_of(sound, segmentation.clip, segmentation.channels, span)
        yield from _late(sound, segmentation, span, clips) or clips


def _late(sound: Sound, segmentation: Segmentation, span: Span | None, clips: list[Clip]) -> list[Clip]:
    """Windows over a recording of one clip that holds a pause, where speech begins after it; else none."""
    level = min(clip.level for clip in clips)
    if not segmentation.whole or level > segmentation.threshold(window=True):
        return []
    # A stretch is found anew by its times.
    if span is None:
        sound.seek(0)
    windows = [replace(clip, is_window=True) for clip in _windows(sound, segmentation, span)]
    loudest = max(clip.level for clip in windows)
    return windows if loudest > max(segmentation.threshold(window=True), level + LOUDER) else []


def _seconds(sound: Sound, span: Span | None) -> float:
    seconds = _length(sound) / sound.rate
    return seconds if span is None else min(span[1], seconds) - span[0]


def _windows(sound: Sound, segmentation: Segmentation, span: Span | None) -> Iterator[Clip]:
    rule, rate = segmentation.clip, sound.rate
    window = round((segmentation.window or rule.seconds) * rule.sample_rate)
    hop = segmentation.hop or segmentation.window or rule.seconds
    begin = span[0] if span else 0.0
    length = _length(sound)
    channels = Channels(segmentation.channels, sound.channels)
    asked = seek(sound, span, length / rate) if span else None
    stream = _Stream(sound, channels, rule.sample_rate, asked)
    number = start = reached = 0
    while number == 0 or (start < stream.total and reached < stream.total):
        samples, instead = stream.stretch(start, window)
        if not len(samples):
            break
        first, last = begin + start / rule.sample_rate, begin + (start + len(samples)) / rule.sample_rate
        duration = max(length / rate, last)
        for channel, column in zip(channels.numbers, samples.T, strict=True):
            facts = measured(column, rule.sample_rate, sound)
            waveform = fit(column, rule.samples)
            yield Clip(waveform, first, last, duration, *facts, channel or instead, sound.decoder)
        reached = start + window
        number += 1
        start = round(number * hop * rule.sample_rate)
    stream.drain()
    if not stream.decoded:
        raise AudioError("holds no audio", got="0 frames")
    if asked:
        check_span(stream.decoded / rate, asked / rate, begin + stream.decoded / rate)
    else:
        sound.check_complete(stream.decoded, ended=True)


def _length(sound: Sound) -> int:
    """Frames of the recording; where the header does not say, they are counted first, which takes little."""
    if sound.frames is not None:
        return sound.frames
    length = sound.length()
    sound.seek(0)
    return length


class _Stream:
    """Samples of an open recording at another rate, as far as they have been asked for."""

    def __init__(self, sound: Sound, channels: Channels, rate: int, frames: int | None) -> None:
        self._sound, self._channels, self._left = sound, channels, frames
        self._block = max(1, min(BLOCK_SAMPLES // sound.channels, sound.rate))
        count = len(channels.numbers)
        self._scale = rate / sound.rate
        self._resampler = None if sound.rate == rate else soxr.ResampleStream(sound.rate, rate, count, "float32", "HQ")
        self._held: Waveform = np.zeros((0, count), np.float32)
        self._first = 0
        self._ended = False
        self._instead: list[tuple[float, int]] = []
        """(sample at which a block ends, channel that stands in for its mix)"""
        self.decoded = 0
        """Frames of the file read."""

    @property
    def total(self) -> float:
        """Samples there are; infinite until the end is reached."""
        return self._first + len(self._held) if self._ended else float("inf")

    def stretch(self, start: int, length: int) -> tuple[Waveform, int | None]:
        """`length` samples from `start` on, or as many as there are; what is before `start` is let go.

        Returns:
            (n, channels), and the channel that stands in for a mix that cancels.
        """
        # One sample more than asked for tells whether the recording goes on.
        while not self._ended and self._first + len(self._held) <= start + length:
            self._pull()
            gone = min(max(0, start - self._first), len(self._held))
            self._held, self._first = self._held[gone:], self._first + gone
        self._instead = [(end, channel) for end, channel in self._instead if end > start]
        held = [channel for end, channel in self._instead if end - self._block * self._scale < start + length]
        return self._held[start - self._first :][:length], held[0] if held else None

    def drain(self) -> None:
        """Read to the end, so that what is damaged there is not passed over."""
        while not self._ended:
            self._pull()
            self._first, self._held = self._first + len(self._held), self._held[:0]

    def _pull(self) -> None:
        wanted = self._block if self._left is None else min(self._block, self._left)
        frames = self._sound.read(wanted) if wanted else self._held[:0]
        self._ended = len(frames) == 0
        self.decoded += len(frames)
        if self._left is not None:
            self._left -= len(frames)
        samples = self._held[:0]
        if len(frames):
            samples, instead = self._channels.take(frames)
            if instead is not None:
                self._instead.append((self.decoded * self._scale, instead))
        if self._resampler is not None:
            samples = self._resampled(samples)
        self._held = np.concatenate([self._held, samples])

    def _resampled(self, samples: Waveform) -> Waveform:
        assert self._resampler is not None
        mono = samples.shape[1] == 1
        given = np.ascontiguousarray(samples[:, 0] if mono else samples)
        resampled: Waveform = self._resampler.resample_chunk(given, last=self._ended)
        return resampled[:, None] if mono else resampled
