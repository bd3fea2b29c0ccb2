"""Speech through real codecs at stated bit rates, by FFmpeg's encoders, read back as `ser-batch run` reads files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from av.audio.resampler import AudioResampler

from ser_batch.audio.reader import read_recording
from ser_batch.clips import Waveform, fit

TELEPHONE = 8_000
"""Hz at which a telephone samples."""
BLOCK = 4096
"""Samples handed to an encoder at a time."""


def narrowed(sound: Waveform, rate: int, other: int) -> Waveform:
    """`sound` (n,) as if it had been sampled at `other` Hz."""
    return fit(soxr.resample(soxr.resample(sound, rate, other, quality="HQ"), other, rate, quality="HQ"), len(sound))


def telephoned(sound: Waveform, rate: int) -> Waveform:
    """`sound` (n,) sampled at 8 kHz in 8 bits of µ-law (ITU-T G.711)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        soundfile.write(path, soxr.resample(sound, rate, TELEPHONE, quality="HQ"), TELEPHONE, subtype="ULAW")
        return fit(read_recording(path, rate), len(sound))


def coded(sound: Waveform, rate: int, suffix: str, codec: str, bit_rate: int, sampled: int | None = None) -> Waveform:
    """`sound` (n,) encoded at `bit_rate` bits per second and decoded; what is beyond full scale is clipped.

    Args:
        sampled: Hz at which the encoder gets it; None: `rate`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sound.{suffix}"
        given = sound if sampled is None else soxr.resample(sound, rate, sampled, quality="HQ")
        encode(given, sampled or rate, path, codec, bit_rate)
        return fit(read_recording(path, rate), len(sound))


def encode(sound: Waveform, rate: int, path: Path, codec: str, bit_rate: int) -> None:
    """Write `sound` (n,) to `path` by FFmpeg's encoder `codec` at `bit_rate` bits per second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        stream.codec_context.open()
        for frame in _frames(np.clip(sound, -1, 1), stream):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frames(sound: Waveform, stream: Any) -> Iterator[Any]:
    """The sound in the encoder's format, in frames of its size."""
    size = stream.codec_context.frame_size or None
    resampler = AudioResampler(format=stream.format.name, layout="mono", rate=stream.rate, frame_size=size)
    for start in range(0, len(sound), BLOCK):
        block = np.ascontiguousarray(sound[None, start : start + BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
        frame.sample_rate, frame.pts = stream.rate, start
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
