"""The bundle that is embedded in the package: which it is, and that what is no speech gets no confident label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import ser_batch
from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.trust import trust_of

RATE, SECONDS = 48_000, 3
TIME = np.arange(RATE * SECONDS) / RATE


def coloured(rng: np.random.Generator, exponent: float) -> NDArray[np.float64]:
    """Noise whose power falls with frequency to the power `exponent`: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(TIME.size))
    hertz = np.maximum(np.fft.rfftfreq(TIME.size, 1 / RATE), 20)
    return np.fft.irfft(spectrum * hertz ** (-exponent / 2), TIME.size)


def hum(rng: np.random.Generator) -> NDArray[np.float64]:
    mains = sum(np.sin(2 * np.pi * 50 * h * TIME + rng.uniform(0, 6)) / h for h in range(1, 12))
    return np.asarray(mains + 0.05 * rng.standard_normal(TIME.size))


def clicks(rng: np.random.Generator) -> NDArray[np.float64]:
    struck = np.zeros(TIME.size)
    struck[rng.integers(0, TIME.size, 20)] = 1
    ringing = np.exp(-np.arange(2_000) / 200) * rng.standard_normal(2_000)
    return np.convolve(struck, ringing)[: TIME.size]


def chords(rng: np.random.Generator) -> NDArray[np.float64]:
    """Six broken triads of an instrument that is plucked."""
    played = np.zeros((6, TIME.size // 6))
    time = np.arange(played.shape[1]) / RATE
    for bar in played:
        root = rng.choice([110, 147, 196, 220, 262, 330]) * 2 ** (rng.choice([0, 2, 4, 5, 7, 9]) / 12)
        for interval in (1, rng.choice([1.19, 1.26]), 1.5):
            for h in range(1, 8):
                bar += np.sin(2 * np.pi * root * interval * h * time) / h**1.5 * np.exp(-3 * time)
    return played.reshape(-1)


def no_speech() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Kinds of sound without a voice, three of each, none by the generator that training uses."""
    kinds = {
        **{name: lambda rng, p=p: coloured(rng, p) for name, p in (("white", 0), ("pink", 1), ("brown", 2))},
        **{"hum": hum, "clicks": clicks, "chords": chords},
    }
    for name, make in kinds.items():
        for seed in range(3):
            sound = make(np.random.default_rng(seed))
            yield f"{name} {seed}", np.float32(0.1 * sound / np.sqrt(np.mean(sound**2))).clip(-1, 1)
    yield "near silence", np.float32(1e-4 * np.random.default_rng(0).standard_normal(TIME.size))
    yield "digital silence", np.zeros(TIME.size, np.float32)


def test_the_default_bundle_keeps_its_id() -> None:
    assert load_bundle().id == "ravdess-nemo-emovo-compact-a6e3e5ae103d"


def test_noise_music_and_silence_get_no_confident_label() -> None:
    named = dict(no_speech())
    with ser_batch.load(backend="onnxruntime") as model:
        predictions = model.score(list(named.values()), sample_rate=RATE)
    scores = {name: each.score for name, each in zip(named, predictions, strict=True)}
    assert scores.pop("digital silence") is None  # it has no label at all
    confident = trust_of(load_bundle()).confident
    assert confident is not None
    given = [score for score in scores.values() if score is not None]
    assert len(given) == 19 and max(given) < confident.score / 2, scores
