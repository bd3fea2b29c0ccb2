"""The degradations that a bundle is measured under, and how far its answers may follow them.

Each changes a whole recording, mono and at the clip rule's rate, before a clip is cut from it. Codecs are FFmpeg's
encoders at stated bit rates, read back as `ser-batch run` reads files. No noise and no room is one that training
augments with (training.data.augment), so that a model does not meet its own augmentation here.

Sources: traffic's spectrum is No. 2 of ISO 717-1 without its A-weighting; the level of a passing vehicle is that of a
point source on a straight line; a room's images are Allen and Berkley's (JASA 65, 1979), with reflection coefficients
below zero as Lehmann and Johansson propose (JASA 124, 2008), so that low frequencies do not pile up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import log
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from av.audio.resampler import AudioResampler

from ser_batch.audio.reader import read_recording
from ser_batch.clips import Waveform, fit
from training.data.augment import unit

BANDS = (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16_000.0)
TRAFFIC = (2.1, -1.4, -3.8, -4.0, -7.2, -13.2, -19.2, -25.2)
"""Level of urban traffic in each octave of `BANDS`, dB; above 2 kHz, where the standard ends, 6 dB less per octave."""
PASSING = 0.5
"""Seconds in which a passing vehicle comes nearer by as much as its least distance: 7.5 m at 54 km/h."""
ROOM, TALKER, MICROPHONE = (6.0, 5.0, 2.8), (2.0, 1.6, 1.5), (3.6, 2.8, 1.2)
"""Size of the room, and places in it, in metres: the talker is 2 m away."""
REVERBERATION = 0.5
"""Seconds in which the sound in the room falls by 60 dB."""
SPEED_OF_SOUND = 343.0
"""m/s."""
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


def in_noise(sound: Waveform, noise: Waveform, snr: float) -> Waveform:
    """`sound` (n,) with `noise` (n,) of mean power 1 at `snr` dB of its own mean power; silence stays silent."""
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return sound + noise * np.float32(np.sqrt(power / 10 ** (snr / 10)))


def white(size: int, rng: np.random.Generator) -> Waveform:
    """White Gaussian noise (size,) of mean power 1."""
    return rng.standard_normal(size, dtype=np.float32)


def stretch(recording: Waveform, size: int, rng: np.random.Generator) -> Waveform:
    """A recording (n,) as noise (size,) of mean power 1: from a place drawn, over and over where it is too short."""
    start = int(rng.integers(len(recording)))
    return unit(np.take(recording, np.arange(start, start + size), mode="wrap"))


def babble(voices: Sequence[Waveform], size: int, rng: np.random.Generator) -> Waveform:
    """Recordings of people who talk at once, all equally loud: noise (size,) of mean power 1."""
    return unit(np.sum([stretch(voice, size, rng) for voice in voices], axis=0))


def street(size: int, rate: int, rng: np.random.Generator) -> Waveform:
    """Traffic: noise of its spectrum, from a stream of vehicles far off and from single ones that pass."""
    seconds = np.arange(size) / rate
    passing = np.zeros(size)
    for _ in range(max(1, round(seconds[-1] / 2))):
        passing += rng.uniform(0.5, 2.0) / (1 + ((seconds - rng.uniform(0, seconds[-1])) / PASSING) ** 2)
    return unit(_traffic(size, rate, rng) * np.sqrt(0.2 + passing))


def _traffic(size: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / rate), 20.0)
    # An octave is as wide as its frequency is high: per hertz there is the less the higher it is.
    density = np.interp(np.log(frequencies), np.log(BANDS), TRAFFIC) - 10 * np.log10(frequencies)
    return np.fft.irfft(np.fft.rfft(white(size, rng)) * 10 ** (density / 20), size)


def in_room(sound: Waveform, rate: int) -> Waveform:
    """`sound` (n,) as the microphone in the room hears it, the direct sound as loud as it was."""
    response = _response(rate)
    size = 1 << (len(sound) + len(response) - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)
    return heard[: len(sound)].astype(np.float32)


@lru_cache(maxsize=1)
def _response(rate: int) -> np.ndarray:
    """The room's impulse response at `rate` Hz, from the direct sound on, which is 1."""
    orders = [int(SPEED_OF_SOUND * REVERBERATION / (2 * side)) + 1 for side in ROOM]
    reflections, distances = np.zeros(()), np.zeros(())
    for side, talker, microphone, order in zip(ROOM, TALKER, MICROPHONE, orders, strict=True):
        number = np.arange(-order, order + 1)
        images = np.concatenate([2 * number * side + talker, 2 * number * side - talker])
        count = np.concatenate([np.abs(2 * number), np.abs(2 * number - 1)])
        reflections = np.add.outer(reflections, count)
        distances = np.add.outer(distances, (images - microphone) ** 2)
    distances = np.sqrt(distances)
    nearest = distances.min()
    delays = np.round((distances - nearest) / SPEED_OF_SOUND * rate).astype(int)
    heard = delays < REVERBERATION * rate
    response = np.zeros(round(REVERBERATION * rate))
    np.add.at(response, delays[heard], (nearest / distances * (-_reflection()) ** reflections)[heard])
    return response


def _reflection() -> float:
    """How much of a wave's amplitude a wall gives back, by Eyring's formula for the room's reverberation."""
    volume = float(np.prod(ROOM))
    surface = 2 * sum(volume / side for side in ROOM)
    return float(np.exp(-24 * log(10) * volume / (SPEED_OF_SOUND * surface * REVERBERATION) / 2))


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
