"""Noise at the level it says, the same for a clip whichever others are trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

from ser_batch.clips import ClipRule, cut
from ser_batch.errors import TrainingError
from training.config import AugmentConfig
from training.data.augment import add_noise, fresh_version, noisy_copies

RULE = ClipRule()


def speechlike(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """Bursts of noise and tone with pauses between, float32."""
    t = np.arange(int(seconds * 48_000)) / 48_000
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return ((0.3 * np.sin(2 * np.pi * 180 * t) + 0.05 * noise) * (np.sin(2 * np.pi * t) > 0)).astype(np.float32)


def measured_snr(clean: np.ndarray, noisy: np.ndarray) -> float:
    noise = noisy.astype(np.float64) - clean
    return float(10 * np.log10(np.mean(clean.astype(np.float64) ** 2) / np.mean(noise**2)))


@pytest.mark.parametrize("level", [1.0, 1e-3])
@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_noise_is_at_the_ratio_asked_for(snr: float, level: float) -> None:
    clean = speechlike() * np.float32(level)
    noisy = add_noise(clean, snr, np.random.default_rng(0))
    assert measured_snr(clean, noisy) == pytest.approx(snr, abs=0.2)
    assert noisy.dtype == np.float32 and noisy.shape == clean.shape


def test_noise_is_white_and_gaussian() -> None:
    clean = speechlike()
    noise = (add_noise(clean, 10, np.random.default_rng(0)) - clean).astype(np.float64)
    bands = np.array_split(np.abs(np.fft.rfft(noise))[1:] ** 2, 8)
    assert np.ptp(10 * np.log10([band.mean() for band in bands])) < 0.5
    z = noise / noise.std()
    assert abs(z.mean()) < 0.02 and np.mean(z**4) == pytest.approx(3, abs=0.1)
    assert abs(np.corrcoef(noise, clean)[0, 1]) < 0.02


def test_silence_stays_silent() -> None:
    assert not add_noise(np.zeros(1000, np.float32), 10, np.random.default_rng(0)).any()


def test_original_and_three_copies_or_the_copies_alone() -> None:
    clip = speechlike()
    both = noisy_copies(clip, AugmentConfig(), (0, 5))
    alone = noisy_copies(clip, AugmentConfig(keep_original=False), (0, 5))
    assert len(both) == 4 and len(alone) == 3
    np.testing.assert_array_equal(both[0], clip)
    for with_original, without, snr in zip(both[1:], alone, (10, 20, 30), strict=True):
        np.testing.assert_array_equal(with_original, without)
        assert measured_snr(clip, without) == pytest.approx(snr, abs=0.2)


def test_a_clips_copies_depend_on_the_run_and_the_clip_only() -> None:
    clip, config = speechlike(), AugmentConfig()
    first = noisy_copies(clip, config, (0, 5))
    noisy_copies(speechlike(seed=1), config, (0, 6))
    np.testing.assert_array_equal(noisy_copies(clip, config, (0, 5)), first)
    for other in ((0, 6), (1, 5)):
        assert not np.array_equal(noisy_copies(clip, config, other)[1], first[1])
    noises = [copy - clip for copy in first[1:]]
    assert abs(np.corrcoef(noises[0], noises[1])[0, 1]) < 0.02, "two copies share their noise"


def test_the_clip_itself_is_left_alone() -> None:
    clip = speechlike()
    before = clip.copy()
    noisy_copies(clip, AugmentConfig(), (0, 0))
    fresh_version(clip, RULE, AugmentConfig(fresh=True, gain=6), np.random.default_rng(0))
    np.testing.assert_array_equal(clip, before)


def test_a_fresh_version_with_nothing_to_vary_is_the_served_clip() -> None:
    recording = speechlike(4.2)
    config = AugmentConfig(snrs=(), fresh=True)
    np.testing.assert_array_equal(
        fresh_version(recording, RULE, config, np.random.default_rng(0)), cut(recording, RULE)
    )


@pytest.mark.parametrize("seconds", [0.2, 2.9, 3.1, 6.0])
def test_fresh_versions_are_clips_and_are_seeded(seconds: float) -> None:
    config = AugmentConfig(fresh=True, crop_jitter=0.4, gain=6, speeds=(0.9, 1.1))
    recording = speechlike(seconds)
    first, again, other = (fresh_version(recording, RULE, config, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == (144_000,) and first.dtype == np.float32 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_faster_version_is_shorter_and_higher() -> None:
    t = np.arange(96_000) / 48_000
    tone = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    config = AugmentConfig(snrs=(), fresh=True, speeds=(1.25,))
    fast = fresh_version(tone, RULE, config, np.random.default_rng(0))
    assert np.abs(np.fft.rfft(fast)).argmax() / 3 == pytest.approx(1250, abs=1)
    assert np.flatnonzero(np.abs(fast) > 0.1).max() == pytest.approx(96_000 / 1.25, abs=100)


def test_gain_moves_the_level_by_as_much_as_it_says_and_no_more() -> None:
    clip, config = speechlike(), AugmentConfig(snrs=(), fresh=True, gain=6)
    decibels = [
        20 * np.log10(np.abs(fresh_version(clip, RULE, config, np.random.default_rng(s))).max() / np.abs(clip).max())
        for s in range(40)
    ]
    assert -6.001 < min(decibels) < -4 and 4 < max(decibels) < 6.001


@pytest.mark.parametrize(
    "changes",
    [{"snrs": (), "keep_original": False}, {"gain": 3.0}, {"speeds": (0.9, 1.0)}, {"time_mask": 3}, {"speeds": (0.9,)}],
)
def test_settings_that_would_do_nothing_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError):
        dataclasses.replace(AugmentConfig(), **changes)
