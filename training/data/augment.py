"""Augmentation of training waveforms, before both front-ends, so that both branches get the same noise.

The paper's part is additive white Gaussian noise at 10, 20 and 30 dB (section IV-A). Crop jitter, gain and speed
belong to this project's own recipes and are off by default, as do channels (training.data.channels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import soxr

from ser_batch.clips import ClipRule, Waveform, cut, fit
from training.config import AugmentConfig
from training.data.channels import CHANNELS


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
    return _unit(np.fft.irfft(spectrum, size) * swell)


def _babble(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """VOICES of the clip itself, backwards, shifted, at other pitches: nobody's words in a crowd's spectrum."""
    size = len(waveform)
    mixed, places = np.zeros(size, np.float32), np.arange(size)
    for _ in range(VOICES):
        index = (rng.uniform(0, size) - rng.uniform(0.7, 1.4) * places) % (size - 1)
        mixed += np.interp(index, places, waveform).astype(np.float32)
    return _unit(mixed)


def _unit(noise: np.ndarray) -> Waveform:
    """The noise at a mean power of 1; silence stays."""
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    return (noise / np.sqrt(power or 1.0)).astype(np.float32)


NOISES: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "white": _white,
    "coloured": _coloured,
    "babble": _babble,
}
"""By the name that AugmentConfig.noises gives each: noise (n,) of mean power 1 for a clip (n,)."""
VOICES = 5


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
    if config.channels == ("clean",):
        return clip
    return CHANNELS[config.channels[rng.integers(len(config.channels))]](clip, rate, rng)


def _jittered(recording: Waveform, rule: ClipRule, jitter: float, rng: np.random.Generator) -> Waveform:
    """The recording from a start up to `jitter` seconds around the rule's; zeros stand in for what is before it."""
    start = rule.start(len(recording)) + round(rng.uniform(-jitter, jitter) * rule.sample_rate)
    if start < 0:
        return np.pad(recording, (-start, 0))
    return recording[start:]
