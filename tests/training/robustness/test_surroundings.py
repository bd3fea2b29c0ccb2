from __future__ import annotations

import numpy as np
import pytest

from training.robustness import surroundings
from training.robustness.surroundings import babble, in_noise, in_room, street, stretch, white

RATE = 48_000


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
    edges = [round(20 * band * 2**half) for band in surroundings.BANDS[1:6] for half in (-0.5, 0.5)]
    levels = [10 * np.log10(spectrum[a:b].sum()) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert np.subtract(levels, levels[0]) == pytest.approx(np.subtract(surroundings.TRAFFIC[1:6], -1.4), abs=1.5)


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
    assert 3 * from_5_to_25 == pytest.approx(surroundings.REVERBERATION, rel=0.3)
