"""Augmentation of training waveforms, before both front-ends, so that both branches get the same noise.

The paper's part is additive white Gaussian noise at 10, 20 and 30 dB (section IV-A). Crop jitter, gain, speed and the
channels (rooms, narrow bands, telephones, codecs) belong to this project's own recipes and are off by default. Every
channel takes a clip (n,) float32 and gives one of the same length and, but for a room, about the same level.

Sources: µ-law as in ITU-T G.711; a room's decay as in Polack's model, noise under an exponential (Habets 2006); codecs
are libsndfile's own, Opus (RFC 6716) in Ogg and MPEG-1 layer III.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from math import log
from typing import Literal

import numpy as np
import soundfile
import soxr

from ser_batch.clips import ClipRule, Waveform, cut, fit
from training.config import AugmentConfig

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
VOICES = 5


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
    return convolved(clip, tail).astype(np.float32)


def convolved(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The sound (n,) through a filter of that response, cut to the sound's length: (n,) float64."""
    size = 1 << (len(sound) + len(response) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[: len(sound)]


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


def add_noise(
    waveform: Waveform, snr: float, rng: np.random.Generator, kind: Literal["white", "coloured", "babble"] = "white"
) -> Waveform:
    """Add noise to `waveform` (n,) at `snr` dB of the clip's mean power; silence stays silent."""
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    noise = NOISES[kind](waveform, rng)
    return waveform + noise * np.float32(np.sqrt(power / 10 ** (snr / 10)))


def _white(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    return rng.standard_normal(len(waveform), dtype=np.float32)


def _coloured(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Noise whose power falls by 3 to 9 dB an octave and swells and ebbs, as in a street or a machine."""
    size = len(waveform)
    spectrum = np.fft.rfft(_white(waveform, rng))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -rng.uniform(0.5, 1.5)
    swell = 1.0 + rng.uniform(0.0, 0.9) * np.sin(np.linspace(*rng.uniform(0.0, 12.0, 2), size))
    return unit(np.fft.irfft(spectrum, size) * swell)


def _babble(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """VOICES of the clip itself, backwards, shifted, at other pitches: nobody's words in a crowd's spectrum."""
    size = len(waveform)
    mixed, places = np.zeros(size, np.float32), np.arange(size)
    for _ in range(VOICES):
        index = (rng.uniform(0, size) - rng.uniform(0.7, 1.4) * places) % (size - 1)
        mixed += np.interp(index, places, waveform).astype(np.float32)
    return unit(mixed)


def unit(noise: np.ndarray) -> Waveform:
    """The noise at a mean power of 1; silence stays."""
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    return (noise / np.sqrt(power or 1.0)).astype(np.float32)


NOISES: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "white": _white,
    "coloured": _coloured,
    "babble": _babble,
}
"""By the name that AugmentConfig.noises gives each: noise (n,) of mean power 1 for a clip (n,)."""


def noisy_copies(clip: Waveform, config: AugmentConfig, seed: tuple[int, ...]) -> list[Waveform]:
    """The fixed training versions of one clip: itself, if kept, then one copy per signal-to-noise ratio.

    `seed` names run and clip, so that a clip's copies do not depend on which other clips are trained on.
    """
    rng = np.random.default_rng(seed)
    copies = [add_noise(clip, snr, rng) for snr in config.snrs]
    return [clip, *copies] if config.keep_original else copies


def fresh_version(recording: Waveform, rule: ClipRule, config: AugmentConfig, rng: np.random.Generator) -> Waveform:
    """A newly drawn version of a mono recording (n,) as one clip (rule.samples,).

    In order: speed, crop, gain, noise, and the channel that all of it is heard through.
    """
    speed = float(rng.choice(config.speeds))
    if speed != 1.0:
        recording = soxr.resample(recording, rule.sample_rate * speed, rule.sample_rate, quality="QQ")
    if config.crop_jitter:
        recording = _jittered(recording, rule, config.crop_jitter, rng)
    clip = cut(recording, rule) if not config.crop_jitter else fit(recording, rule.samples)
    if config.gain:
        clip = clip * np.float32(10 ** (rng.uniform(-config.gain, config.gain) / 20))
    return degraded(clip, rule.sample_rate, config, rng)


def degraded(clip: Waveform, rate: int, config: AugmentConfig, rng: np.random.Generator) -> Waveform:
    """A clip (n,) with noise of a drawn kind and level, through a drawn channel; (n,)."""
    choices = ([None] if config.keep_original else []) + list(config.snrs)
    snr = choices[rng.integers(len(choices))] if choices else None
    if snr is not None:
        # One kind and one channel alone draw nothing: recipes from before there were several draw as they did.
        kind = config.noises[rng.integers(len(config.noises))] if len(config.noises) > 1 else config.noises[0]
        level = rng.uniform(min(config.snrs), max(config.snrs)) if config.random_snr else snr
        clip = add_noise(clip, level, rng, kind)
    return through_channel(clip, rate, config, rng)


def through_channel(clip: Waveform, rate: int, config: AugmentConfig, rng: np.random.Generator) -> Waveform:
    """A clip (n,) through one of the recipe's channels; (n,)."""
    if config.channels == ("clean",):
        return clip
    return CHANNELS[config.channels[rng.integers(len(config.channels))]](clip, rate, rng)


def _jittered(recording: Waveform, rule: ClipRule, jitter: float, rng: np.random.Generator) -> Waveform:
    """The recording from a start up to `jitter` seconds around the rule's; zeros stand in for what is before it."""
    start = rule.start(len(recording)) + round(rng.uniform(-jitter, jitter) * rule.sample_rate)
    if start < 0:
        return np.pad(recording, (-start, 0))
    return recording[start:]
