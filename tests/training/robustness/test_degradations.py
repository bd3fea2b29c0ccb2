from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_batch.audio.measure import bandwidth
from support.recordings import sound
from training.robustness import degradations
from training.robustness.degradations import (
    babble,
    coded,
    encode,
    in_noise,
    in_room,
    narrowed,
    street,
    stretch,
    telephoned,
    white,
)

RATE = 48_000
NOISE = sound(4.0, RATE)[:, 0].astype(np.float32)


@pytest.mark.parametrize(("suffix", "codec", "bits"), [("opus", "libopus", 16_000), ("mp3", "libmp3lame", 32_000)])
def test_a_codec_has_the_bit_rate_that_is_asked_for(tmp_path: Path, suffix: str, codec: str, bits: int) -> None:
    encode(NOISE, RATE, tmp_path / f"a.{suffix}", codec, bits)
    assert (tmp_path / f"a.{suffix}").stat().st_size * 8 / 4.0 == pytest.approx(bits, rel=0.2)


@pytest.mark.parametrize(("suffix", "codec"), [("opus", "libopus"), ("mp3", "libmp3lame")])
def test_what_is_decoded_lies_where_it_lay(suffix: str, codec: str) -> None:
    heard = coded(NOISE, RATE, suffix, codec, 128_000)
    assert heard.shape == NOISE.shape and heard.dtype == np.float32
    assert np.corrcoef(heard, NOISE)[0, 1] > 0.9  # a shift of three samples would leave half of it


def test_an_encoder_is_given_what_was_sampled() -> None:
    heard = coded(NOISE, RATE, "opus", "libopus", 32_000, 16_000)
    assert heard.shape == NOISE.shape and (bandwidth(heard, RATE, RATE) or 0) < 9_000


def test_nothing_is_left_above_half_the_rate() -> None:
    assert (bandwidth(narrowed(NOISE, RATE, 16_000), RATE, RATE) or 0) < 8_100
    assert (bandwidth(telephoned(NOISE, RATE), RATE, RATE) or 0) < 4_100


def test_a_telephone_has_256_levels() -> None:
    quiet = np.sin(np.arange(RATE) / 40).astype(np.float32) * 0.3
    heard = telephoned(quiet, RATE)
    middle = slice(1000, -1000)  # resampling rings at the ends
    error = np.std(heard[middle] - quiet[middle]) / np.std(quiet)
    assert 0.001 < error < 0.03  # G.711 has some 38 dB of signal over noise


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def power(sound: np.ndarray) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64)))


def test_noise_is_as_loud_as_asked(rng: np.random.Generator) -> None:
    sound = 0.1 * white(RATE, rng)
    voices = [0.01 * white(RATE // 3, rng), 0.5 * white(2 * RATE, rng)]
    for noise in (white(RATE, rng), babble(voices, RATE, rng), street(RATE, RATE, rng), stretch(voices[0], RATE, rng)):
        assert power(noise) == pytest.approx(1.0, rel=0.02)
        added = in_noise(sound, noise, 20.0) - sound
        assert 10 * np.log10(power(sound) / power(added)) == pytest.approx(20.0, abs=0.1)
    silence = np.zeros(RATE, np.float32)
    assert not in_noise(silence, white(RATE, rng), 20.0).any()
    assert not in_noise(silence, babble([silence], RATE, rng), 20.0).any()


def test_every_voice_of_a_babble_is_heard_alike(rng: np.random.Generator) -> None:
    low, high = (np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE) for hertz in (200, 3000))
    spectrum = np.abs(np.fft.rfft(babble([(0.01 * low).astype(np.float32), high.astype(np.float32)], RATE, rng)))
    assert spectrum[200] == pytest.approx(spectrum[3000], rel=0.01)


def test_traffic_has_the_levels_of_its_octaves(rng: np.random.Generator) -> None:
    noise = street(20 * RATE, RATE, rng)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    edges = [round(20 * band * 2**half) for band in degradations.BANDS[1:6] for half in (-0.5, 0.5)]
    levels = [10 * np.log10(spectrum[a:b].sum()) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert np.subtract(levels, levels[0]) == pytest.approx(np.subtract(degradations.TRAFFIC[1:6], -1.4), abs=1.5)


def test_vehicles_pass(rng: np.random.Generator) -> None:
    halves = street(10 * RATE, RATE, rng).reshape(20, -1)
    loudest, least = (10 * np.log10(f(np.square(halves).mean(axis=1))) for f in (np.max, np.min))
    assert loudest - least > 6


def test_a_room_rings_for_as_long_as_it_says() -> None:
    click = np.zeros(RATE, np.float32)
    click[100] = 1.0
    heard = in_room(click, RATE)
    assert not np.abs(heard[:99]).max() > 1e-6 and heard[100] == pytest.approx(1.0, abs=0.01)
    left = np.cumsum(np.square(heard[::-1], dtype=np.float64))[::-1]
    decay = 10 * np.log10(left / left[0] + 1e-12)
    from_5_to_25 = (np.argmax(decay < -25) - np.argmax(decay < -5)) / RATE
    assert 3 * from_5_to_25 == pytest.approx(degradations.REVERBERATION, rel=0.3)
