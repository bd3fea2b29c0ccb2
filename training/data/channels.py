"""What speech goes through on its way to a recording: rooms, narrow bands, telephones, codecs, as augmentation.

Every function takes a clip (n,) float32 and gives one of the same length and, but for a room, about the same level.

Sources: µ-law as in ITU-T G.711; a room's decay as in Polack's model, noise under an exponential (Habets 2006); codecs
are libsndfile's own, Opus (RFC 6716) in Ogg and MPEG-1 layer III.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from math import log

import numpy as np
import soundfile
import soxr

from ser_batch.clips import Waveform, fit

Channel = Callable[[Waveform, int, np.random.Generator], Waveform]

CUTOFFS = (3_000.0, 16_000.0)
"""Hz between which a low-pass is drawn, evenly in octaves."""
TELEPHONE = 8_000
"""Hz of sampling."""
MU = 255.0
OPUS_LEVELS = (0.94, 0.98)
"""libsndfile's compression levels: 20 to 11 kbit/s."""
MP3_LEVELS = (0.90, 0.98)
"""libsndfile's compression levels: 39 to 35 kbit/s, variable."""
DECAYS = (0.2, 0.8)
"""Seconds in which a room's reverberation falls by 60 dB."""
REVERBERATION = (-15.0, 0.0)
"""dB of the reverberation's energy over that of the direct sound."""


def lowpass(clip: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Nothing above a cut-off drawn from CUTOFFS, as if sampled at twice that rate once."""
    low, high = (log(hertz) for hertz in CUTOFFS)
    return _resampled(clip, rate, 2 * float(np.exp(rng.uniform(low, high))))


def telephone(clip: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Sampled at 8 kHz in 8 bits of µ-law."""
    return _resampled(clip, rate, TELEPHONE, _mu_law)


def opus(clip: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Through Opus at a bit rate of voice messages."""
    return _coded(clip, rate, "OGG", "OPUS", rng.uniform(*OPUS_LEVELS))


def mp3(clip: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Through MP3 at the lowest bit rates that are in use."""
    return _coded(clip, rate, "MP3", "MPEG_LAYER_III", rng.uniform(*MP3_LEVELS))


def room(clip: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """The direct sound, and its reverberation at a decay and a level drawn from DECAYS and REVERBERATION."""
    decay, ratio = rng.uniform(*DECAYS), rng.uniform(*REVERBERATION)
    time = np.arange(round(decay * rate), dtype=np.float32) / rate
    tail = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-3 * log(10) / decay * time)
    tail *= np.sqrt(10 ** (ratio / 10) / np.square(tail).sum())
    tail[0] += 1.0
    size = 1 << (len(clip) + len(tail) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(tail, size), size)
    return wet[: len(clip)].astype(np.float32)


CHANNELS: dict[str, Channel] = {
    "clean": lambda clip, rate, rng: clip,
    "lowpass": lowpass,
    "telephone": telephone,
    "opus": opus,
    "mp3": mp3,
    "room": room,
}
"""By the name that AugmentConfig.channels gives each."""


def _resampled(
    clip: Waveform, rate: int, other: float, change: Callable[[Waveform], Waveform] | None = None
) -> Waveform:
    narrow: Waveform = soxr.resample(clip, rate, other, quality="LQ")
    wide: Waveform = soxr.resample(narrow if change is None else change(narrow), other, rate, quality="LQ")
    return fit(wide, len(clip))


def _mu_law(clip: Waveform) -> Waveform:
    """Rounded to the 256 levels of µ-law, of which the clip's loudest sample reaches the outermost."""
    peak = _peak(clip)
    pressed = np.sign(clip) * np.log1p(MU * np.abs(clip) / peak) / np.log1p(MU)
    rounded = np.round(pressed * 127) / 127
    return (np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(MU)) / MU * peak).astype(np.float32)


def _coded(clip: Waveform, rate: int, container: str, codec: str, level: float) -> Waveform:
    """Encoded at half of full scale, since a codec clips, and decoded, both in memory."""
    file, scale = io.BytesIO(), np.float32(0.5 / _peak(clip))
    soundfile.write(file, clip * scale, rate, format=container, subtype=codec, compression_level=level)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return fit(decoded, len(clip)) / scale


def _peak(clip: Waveform) -> float:
    return float(np.abs(clip).max()) or 1.0
