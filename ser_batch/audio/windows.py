"""A long recording as overlapping segments, streamed: memory holds one segment and a second of the file.

Segments start at 0, hop, 2·hop …; the last is the one that reaches the end, and may be shorter than the window.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from ser_batch.audio.container import check_complete
from ser_batch.audio.reader import BLOCK_SAMPLES, Clip, Span, check_span, level, mono, opened, seek
from ser_batch.clips import Segmentation, Waveform, fit
from ser_batch.errors import AudioError


def read_windows(
    path: str | os.PathLike[str], segmentation: Segmentation, *, span: Span | None = None, descriptor: int | None = None
) -> Iterator[Clip]:
    """Decode a recording segment by segment; each is padded with zeros to the clip's length.

    Equal to resampling the whole recording and cutting it, to float rounding.

    Raises:
        AudioError: as `read_clip`, once the damage is reached: the segments before it are good.
    """
    rule = segmentation.clip
    window = round((segmentation.window or rule.seconds) * rule.sample_rate)
    hop = segmentation.hop or segmentation.window or rule.seconds
    with opened(path, descriptor) as (sound, file):
        rate, channels = sound.samplerate, sound.channels
        begin = span[0] if span else 0.0
        stream = _Stream(sound, rule.sample_rate, seek(sound, span) if span else None)
        number = start = reached = 0
        while number == 0 or (start < stream.total and reached < stream.total):
            samples = stream.stretch(start, window)
            if not len(samples):
                break
            times = (begin + start / rule.sample_rate, begin + (start + len(samples)) / rule.sample_rate)
            duration = max(sound.frames / rate, times[1])
            yield Clip(fit(samples, rule.samples), *times, duration, rate, channels, level(samples))
            reached = start + window
            number += 1
            start = round(number * hop * rule.sample_rate)
        stream.drain()
        if not stream.decoded:
            raise AudioError("holds no audio", got="0 frames")
        if span:
            check_span(stream.decoded / rate, span[1] - span[0])
        else:
            check_complete(sound, file, stream.decoded, ended=True)


class _Stream:
    """Samples of an open recording at another rate, as far as they have been asked for."""

    def __init__(self, sound: soundfile.SoundFile, rate: int, frames: int | None) -> None:
        self._sound, self._left = sound, frames
        self._block = max(1, min(BLOCK_SAMPLES // sound.channels, sound.samplerate))
        same = sound.samplerate == rate
        self._resampler = None if same else soxr.ResampleStream(sound.samplerate, rate, 1, "float32", "HQ")
        self._held: Waveform = np.zeros(0, np.float32)
        self._first = 0
        self._ended = False
        self.decoded = 0
        """Frames of the file read."""

    @property
    def total(self) -> float:
        """Samples there are; infinite until the end is reached."""
        return self._first + len(self._held) if self._ended else float("inf")

    def stretch(self, start: int, length: int) -> Waveform:
        """`length` samples from `start` on, or as many as there are; what is before `start` is let go."""
        # One sample more than asked for tells whether the recording goes on.
        while not self._ended and self._first + len(self._held) <= start + length:
            self._pull()
            gone = min(max(0, start - self._first), len(self._held))
            self._held, self._first = self._held[gone:], self._first + gone
        return self._held[start - self._first :][:length]

    def drain(self) -> None:
        """Read to the end, so that what is damaged there is not passed over."""
        while not self._ended:
            self._pull()
            self._first, self._held = self._first + len(self._held), self._held[:0]

    def _pull(self) -> None:
        wanted = self._block if self._left is None else min(self._block, self._left)
        frames = self._sound.read(wanted, "float32", always_2d=True) if wanted else np.zeros((0, 1), np.float32)
        self._ended = len(frames) == 0
        self.decoded += len(frames)
        if self._left is not None:
            self._left -= len(frames)
        samples = mono(frames) if len(frames) else frames[:, 0]
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=self._ended)
        self._held = np.concatenate([self._held, samples])
