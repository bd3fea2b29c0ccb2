"""The bias for stated shares, against its definition and against plain iteration."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.adaptation.bias import bias_for_shares, biased
from ser_batch.errors import InputError

RNG = np.random.default_rng(0)


def rows(count: int, sharpness: float = 2.0, labels: int = 5) -> np.ndarray:
    logits = sharpness * RNG.normal(size=(count, labels)) + np.arange(labels)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("sharpness", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("shares", [np.full(5, 0.2), np.array([0.75, 0.1, 0.05, 0.05, 0.05])])
def test_the_mean_probability_is_the_stated_shares(sharpness, shares):
    probabilities = rows(400, sharpness)
    found = biased(probabilities, bias_for_shares(probabilities, shares))
    assert np.abs(found.mean(axis=0) - shares).max() < 1e-7
    assert np.allclose(found.sum(axis=1), 1)


def test_it_is_what_iteration_finds():
    probabilities, shares = rows(300), np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    bias = np.zeros(5)
    for _ in range(2000):
        bias += np.log(shares / biased(probabilities, bias).mean(axis=0))
    assert np.allclose(bias_for_shares(probabilities, shares), bias - bias.mean(), atol=1e-6)


def test_a_label_without_a_share_is_never_said():
    probabilities = rows(200)
    shares = np.array([0.5, 0.0, 0.2, 0.0, 0.3])
    bias = bias_for_shares(probabilities, shares)
    found = biased(probabilities, bias)
    assert np.isneginf(bias[[1, 3]]).all() and not found[:, [1, 3]].any()
    assert np.abs(found.mean(axis=0) - shares).max() < 1e-7


def test_rows_without_a_doubt_are_no_trap():
    # No bias short of infinity makes a quarter of them the second label; it must end, and be finite.
    certain = np.tile(np.float32([1.0, 0.0, 0.0]), (50, 1))
    bias = bias_for_shares(certain, np.array([0.5, 0.25, 0.25]))
    assert np.isfinite(bias).all()
    assert np.abs(biased(certain, bias).mean(axis=0) - [0.5, 0.25, 0.25]).max() < 1e-6


def test_a_temperature_flattens_and_nothing_changes_nothing():
    probabilities = rows(20)
    assert np.allclose(biased(probabilities, np.zeros(5)), probabilities, atol=1e-6)
    assert (biased(probabilities, np.zeros(5), 2.0).max(axis=1) < probabilities.max(axis=1)).all()


def test_no_rows():
    with pytest.raises(InputError, match="no scored rows"):
        bias_for_shares(rows(0), np.full(5, 0.2))
