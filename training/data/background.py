"""Clips without speech, so that a branch learns to be unsure of them: generated, no recording of anyone.

Source: Hendrycks et al. 2019, "Deep Anomaly Detection with Outlier Exposure" (arXiv 1812.04606).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ser_batch.clips import ClipRule, Waveform
from training.config import AugmentConfig
from training.data.augment import convolved, through_channel, unit

LEVEL = 0.1
"""Root mean square of every clip."""


def background_clip(rule: ClipRule, config: AugmentConfig, rng: np.random.Generator) -> Waveform:
    """Noise, hum, tones, chords or clicks (rule.samples,), sometimes two at once, through one of the channels."""
    clip = _one(rule, rng)
    if rng.random() < 0.5:
        clip = clip + np.float32(rng.uniform(0.0, 1.0)) * _one(rule, rng)
    return through_channel(LEVEL * unit(clip), rule.sample_rate, config, rng)


def _one(rule: ClipRule, rng: np.random.Generator) -> Waveform:
    make = SOUNDS[rng.integers(len(SOUNDS))]
    time = np.arange(rule.samples, dtype=np.float32) / np.float32(rule.sample_rate)
    return unit(make(time, rng))


def _noise(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White to brown and beyond, steady or swelling, over the whole band or one part of it."""
    size = len(time)
    spectrum, hertz = np.fft.rfft(rng.standard_normal(size)), np.fft.rfftfreq(size, float(time[1] - time[0]))
    spectrum *= np.maximum(hertz, 20.0) ** -rng.uniform(0.0, 1.5)
    if rng.random() < 0.3:
        middle, octaves = 2 ** rng.uniform(7, 13), rng.uniform(0.2, 2.0)
        spectrum *= np.exp(-0.5 * (np.log2(np.maximum(hertz, 20.0) / middle) / octaves) ** 2)
    swell = 1.0 + rng.uniform(0.0, 1.0) * np.sin(2 * np.pi * rng.uniform(0.1, 6.0) * time)
    return np.fft.irfft(spectrum, size) * swell


def _hum(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mains or a machine: harmonics of a steady low tone, and noise."""
    tones = _harmonics(time, rng.choice([50.0, 60.0, rng.uniform(30.0, 200.0)]), rng.uniform(0.3, 2.0), rng)
    return unit(tones) + rng.uniform(0.0, 0.5) * unit(_noise(time, rng))


def _tones(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Beeps, or one tone that holds or glides."""
    pitch = 2 ** rng.uniform(7, 12) * 2 ** (rng.uniform(-1, 1) * time / time[-1])
    tone = np.sin(2 * np.pi * np.cumsum(pitch) * float(time[1]))
    beeps = np.sin(2 * np.pi * rng.uniform(0.3, 5.0) * time) > rng.uniform(-1.0, 0.5)
    return tone * beeps if rng.random() < 0.5 else tone


def _chords(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of music: up to three voices whose notes of a scale follow each other, plucked or held."""
    music, beats = np.zeros(len(time)), int(rng.integers(2, 13))
    root, scale = 2 ** rng.uniform(6, 9), np.array([0, 2, 4, 5, 7, 9, 11, 12])
    for number in range(beats):
        part = slice(number * len(time) // beats, (number + 1) * len(time) // beats)
        since = time[part] - time[part][0]
        for _ in range(rng.integers(1, 4)):
            note = _harmonics(since, root * 2 ** (rng.choice(scale) / 12), rng.uniform(0.8, 2.5), rng)
            music[part] += note * np.exp(-since * rng.choice([0.0, 2.0, 8.0]))
    return music


def _clicks(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Steps, keys, rain: short bursts of noise at random or regular times."""
    size, count = len(time), int(2 ** rng.uniform(1, 9))
    regular = rng.random() < 0.3
    places = np.linspace(0, size - 1, count, dtype=int) if regular else rng.integers(0, size, count)
    train = np.zeros(size)
    train[places] = rng.uniform(0.2, 1.0, count)
    length = int(2 ** rng.uniform(6, 12))
    burst = rng.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
    return convolved(train, burst)


def _harmonics(time: np.ndarray, pitch: float, slope: float, rng: np.random.Generator) -> np.ndarray:
    return sum(np.sin(2 * np.pi * pitch * n * time + rng.uniform(0, 2 * np.pi)) / n**slope for n in range(1, 9))


SOUNDS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (_noise, _hum, _tones, _chords, _clicks)
