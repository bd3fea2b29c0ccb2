"""The degradations that a bundle is measured under, and how far its answers may follow them.

Each changes a whole recording, mono and at the clip rule's rate, before a clip is cut from it. Codecs are FFmpeg's
encoders at stated bit rates, read back as `ser-batch run` reads files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from av.audio.resampler import AudioResampler

from ser_batch.audio.reader import read_recording
from ser_batch.clips import Waveform, fit
from training.robustness.surroundings import babble, in_noise, in_room, street, stretch, white

TELEPHONE = 8_000
"""Hz at which a telephone samples."""
BLOCK = 4096
"""Samples handed to an encoder at a time."""
SNR = 20.0
"""dB of speech over noise, both by their mean power over the recording."""
EXACT = 1e-3
"""Change of a probability up to which level and offset do not matter."""
CLEAN = "as it is"
BELOW_CONTEXT = 2.0
"""Points of accuracy by which the fusion may be below the context branch alone, in every row."""


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


@dataclass(frozen=True)
class Scene:
    """What a degradation has at hand for one recording."""

    rate: int
    """Hz."""
    rng: np.random.Generator
    voices: Callable[[], list[Waveform]]
    """Draws recordings by other speakers."""
    street: Callable[[], Waveform] | None = None
    """Draws a recording of a street; None: there is none, and it is synthesised."""


@dataclass(frozen=True)
class Degradation:
    """One row of the table."""

    name: str
    change: Callable[[Waveform, Scene], Waveform]
    """A recording (n,), as it is heard then (n,)."""
    may_fall: float | None = None
    """Points of accuracy by which the fusion may fall; None: no bound is set."""
    may_change: float | None = None
    """How far a probability may move; None: no bound is set."""


def _gain(decibels: float, sound: Waveform, scene: Scene) -> Waveform:
    return sound * np.float32(10 ** (decibels / 20))


def _offset(share: float, sound: Waveform, scene: Scene) -> Waveform:
    return sound + np.float32(share)


def _narrow(rate: int, sound: Waveform, scene: Scene) -> Waveform:
    return narrowed(sound, scene.rate, rate)


def _telephone(sound: Waveform, scene: Scene) -> Waveform:
    return telephoned(sound, scene.rate)


def _opus(sampled: int | None, sound: Waveform, scene: Scene) -> Waveform:
    return coded(sound, scene.rate, "opus", "libopus", 16_000, sampled)


def _mp3(sound: Waveform, scene: Scene) -> Waveform:
    return coded(sound, scene.rate, "mp3", "libmp3lame", 32_000)


def _white(sound: Waveform, scene: Scene) -> Waveform:
    return in_noise(sound, white(len(sound), scene.rng), SNR)


def _babble(sound: Waveform, scene: Scene) -> Waveform:
    return in_noise(sound, babble(scene.voices(), len(sound), scene.rng), SNR)


def _street(sound: Waveform, scene: Scene) -> Waveform:
    if scene.street is None:
        return in_noise(sound, street(len(sound), scene.rate, scene.rng), SNR)
    return in_noise(sound, stretch(scene.street(), len(sound), scene.rng), SNR)


def _room(sound: Waveform, scene: Scene) -> Waveform:
    return in_room(sound, scene.rate)


DEGRADATIONS = (
    Degradation(CLEAN, lambda sound, scene: sound),
    Degradation("20 dB quieter", partial(_gain, -20.0), may_change=EXACT),
    Degradation("40 dB quieter", partial(_gain, -40.0), may_change=EXACT),
    Degradation("12 dB louder, unclipped", partial(_gain, 12.0), may_change=EXACT),
    Degradation("offset of 0.5 % of full scale", partial(_offset, 0.005), may_change=EXACT),
    Degradation("offset of 5 % of full scale", partial(_offset, 0.05), may_change=EXACT),
    Degradation("16 kHz", partial(_narrow, 16_000), may_fall=3.0),
    Degradation("8 kHz µ-law", _telephone, may_fall=6.0),
    # Given 48 kHz, Opus keeps all of the band at 16 kbit/s; messengers record speech at 16 kHz.
    Degradation("Opus, 16 kbit/s", partial(_opus, None), may_fall=3.0),
    Degradation("Opus, 16 kbit/s, of 16 kHz", partial(_opus, 16_000), may_fall=3.0),
    Degradation("MP3, 32 kbit/s", _mp3, may_fall=3.0),
    Degradation("white noise, 20 dB SNR", _white),
    Degradation("babble, 20 dB SNR", _babble, may_fall=5.0),
    Degradation("street, 20 dB SNR", _street, may_fall=5.0),
    Degradation("room, 0.5 s, 2 m", _room),
)
