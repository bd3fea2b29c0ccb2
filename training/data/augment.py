"""Augmentation of training waveforms, before both front-ends, so that both branches get the same noise.

The paper's part is additive white Gaussian noise at 10, 20 and 30 dB (section IV-A). Crop jitter, gain and speed
belong to this project's own recipes and are off by default, as do channels (training.data.channels).
"""

from __future__ import annotations

import numpy as np
import soxr

from ser_batch.clips import ClipRule, Waveform, cut, fit
from training.config import AugmentConfig
from training.data.channels import CHANNELS


def add_noise(waveform: Waveform, snr: float, rng: np.random.Generator) -> Waveform:
    """Add white Gaussian noise to `waveform` (n,) at `snr` dB of the clip's mean power; silence stays silent."""
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    noise = rng.standard_normal(len(waveform), dtype=np.float32)
    return waveform + noise * np.float32(np.sqrt(power / 10 ** (snr / 10)))


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
    choices = ([None] if config.keep_original else []) + list(config.snrs)
    snr = choices[rng.integers(len(choices))] if choices else None
    if snr is not None:
        clip = add_noise(clip, rng.uniform(min(config.snrs), max(config.snrs)) if config.random_snr else snr, rng)
    if config.channels == ("clean",):  # nothing to draw: recipes from before there were channels draw as they did
        return clip
    return CHANNELS[config.channels[rng.integers(len(config.channels))]](clip, rule.sample_rate, rng)


def _jittered(recording: Waveform, rule: ClipRule, jitter: float, rng: np.random.Generator) -> Waveform:
    """The recording from a start up to `jitter` seconds around the rule's; zeros stand in for what is before it."""
    start = rule.start(len(recording)) + round(rng.uniform(-jitter, jitter) * rule.sample_rate)
    if start < 0:
        return np.pad(recording, (-start, 0))
    return recording[start:]
