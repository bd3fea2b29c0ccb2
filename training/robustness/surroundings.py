"""Where a recording was made: among people who talk, beside a street, in a room.

None of it is what training augments with (training.data), so that a model does not meet its own augmentation here.

Sources: traffic's spectrum is No. 2 of ISO 717-1 without its A-weighting; the level of a passing vehicle is that of a
point source on a straight line; a room's images are Allen and Berkley's (JASA 65, 1979), with reflection coefficients
below zero as Lehmann and Johansson propose (JASA 124, 2008), so that low frequencies do not pile up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log

import numpy as np

from ser_batch.clips import Waveform

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


def unit(noise: np.ndarray) -> Waveform:
    """Noise (n,) at a mean power of 1; silence stays."""
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    return (noise / np.sqrt(power or 1.0)).astype(np.float32)
