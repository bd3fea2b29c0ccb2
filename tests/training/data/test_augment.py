"""Noise at the level it says, and channels that do to the spectrum what they say, the same for the same seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from ser_batch.clips import ClipRule, cut
from ser_batch.errors import TrainingError
from training.config import AugmentConfig
from training.data.augment import CHANNELS, CUTOFFS, DECAYS, _mu_law, add_noise, fresh_version, noisy_copies

RULE = ClipRule()
RATE = 48_000
CODED = {"opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}
HERE = [
    name for name in CHANNELS if name not in CODED or CODED[name][1] in soundfile.available_subtypes(CODED[name][0])
]


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


def speech(seed: int = 0) -> np.ndarray:
    """Two seconds of harmonics under syllables, breath up to 24 kHz, and a second of silence: (144000,) float32."""
    time, rng = np.arange(144_000) / RATE, np.random.default_rng(seed)
    voice = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 40)) * np.sin(2 * np.pi * 2 * time) ** 2
    x = 0.02 * (voice + 0.3 * rng.standard_normal(144_000))
    x[96_000:] = 0
    return x.astype(np.float32)


def band(x: np.ndarray, low: float, high: float) -> float:
    """dB of the power between two frequencies."""
    power = np.abs(np.fft.rfft(x.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(x), 1 / RATE)
    return 10 * np.log10(power[(hertz >= low) & (hertz < high)].sum() + 1e-20)


def heard(name: str, x: np.ndarray, seed: int = 0) -> np.ndarray:
    return CHANNELS[name](x, RATE, np.random.default_rng(seed))


@pytest.mark.parametrize("name", HERE)
def test_every_channel_keeps_length_type_level_and_what_was_said(name: str) -> None:
    x = speech()
    y = heard(name, x)
    assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all()
    np.testing.assert_array_equal(y, heard(name, x))
    assert abs(band(y, 100, 3000) - band(x, 100, 3000)) < 4
    assert np.corrcoef(y, heard("lowpass", x))[0, 1] > 0.6, "not the same speech at the same time"
    quiet = heard(name, x * np.float32(2**-10))  # a codec turns a rounding error into other noise
    np.testing.assert_allclose(quiet * 2**10, y, atol=0.05 * np.abs(y).max())
    assert not heard(name, np.zeros(4_800, np.float32)).any() or name in CODED


def test_a_lowpass_leaves_nothing_above_its_cutoff_and_all_below() -> None:
    x, widths = np.random.default_rng(0).standard_normal(144_000).astype(np.float32), []
    for seed in range(12):
        y = heard("lowpass", x, seed)
        assert band(y, 1.1 * CUTOFFS[1], 24_000) < band(x, 1.1 * CUTOFFS[1], 24_000) - 40
        assert abs(band(y, 100, 0.7 * CUTOFFS[0]) - band(x, 100, 0.7 * CUTOFFS[0])) < 0.5
        widths.append(band(y, 3_000, 16_000))
    assert np.ptp(widths) > 3, "always the same cut-off"


def test_a_telephone_has_4_khz_and_the_noise_of_8_bits() -> None:
    x = speech()
    y = heard("telephone", x)
    assert band(y, 4_400, 24_000) < band(x, 4_400, 24_000) - 30
    t = np.linspace(-1, 1, 10_001, dtype=np.float32)
    rounded = _mu_law(t)
    assert len(np.unique(rounded)) <= 256 and np.abs(rounded - t)[np.abs(t) > 0.1].max() < 0.03
    ratio = np.mean(t**2) / np.mean((rounded - t) ** 2)
    assert 33 < 10 * np.log10(ratio) < 43  # G.711: about 38 dB


@pytest.mark.parametrize("name", [name for name in HERE if name in CODED])
def test_a_codec_loses_something_but_not_the_speech(name: str) -> None:
    x = speech()[:96_000]
    y = heard(name, x)
    loss = 10 * np.log10(np.mean(x**2) / np.mean((y - x) ** 2))
    assert 0 < loss < 30


def test_a_room_rings_for_as_long_as_its_decay() -> None:
    click = np.zeros(96_000, np.float32)
    click[1_000] = 1
    for seed in range(5):
        y = heard("room", click, seed)
        assert not np.abs(y[:999]).max() > 1e-5 and abs(y[1_000] - 1) < 0.3
        energy = np.cumsum(y[::-1].astype(np.float64) ** 2)[::-1] / np.sum(y[1_001:].astype(np.float64) ** 2)
        fell = np.argmax(energy[1_001:] < 1e-3) / RATE  # 30 dB: half the decay
        assert 0.4 * DECAYS[0] <= fell <= 0.6 * DECAYS[1]


def test_channels_are_drawn_one_per_version_and_recipes_without_them_draw_as_before() -> None:
    x = speech()
    plain = AugmentConfig(fresh=True, snrs=(20.0,), gain=3.0)
    through = AugmentConfig(fresh=True, snrs=(20.0,), gain=3.0, channels=("clean", "telephone"))
    narrow = 0
    for seed in range(20):
        first, second = (fresh_version(x, RULE, config, np.random.default_rng(seed)) for config in (plain, through))
        same = np.array_equal(first, second)
        narrow += not same
        assert same or band(second, 4_400, 24_000) < band(first, 4_400, 24_000) - 20
    assert 4 <= narrow <= 16


def test_noise_of_any_level_lies_between_the_levels_named() -> None:
    x, ratios = speech()[:96_000].repeat(2)[:144_000], []
    config = AugmentConfig(fresh=True, snrs=(5.0, 35.0), random_snr=True, keep_original=False)
    for seed in range(30):
        noise = fresh_version(x, RULE, config, np.random.default_rng(seed)) - x
        ratios.append(10 * np.log10(np.mean(x**2) / np.mean(noise**2)))
    assert 4.5 < min(ratios) < 12 and 28 < max(ratios) < 35.5
    assert len({round(ratio) for ratio in ratios}) > 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": ("opus",)},
        {"random_snr": True},
        {"fresh": True, "channels": ()},
        {"fresh": True, "random_snr": True, "snrs": (10.0,)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(TrainingError):
        AugmentConfig(**wrong)
