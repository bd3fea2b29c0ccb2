"""Reliability bins and the calibration error, by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ser_batch.evaluation.calibration import calibration_error, fit_temperature, reliability, temper


def test_fifteen_bins_of_equal_width_cover_the_interval() -> None:
    bins = reliability(np.array([True]), np.array([0.5]))
    assert len(bins) == 15 and bins[0].low == 0 and bins[-1].high == 1
    assert all(b.high - b.low == pytest.approx(1 / 15) for b in bins)
    assert all(a.high == b.low for a, b in pairwise(bins))


def test_bins_are_open_below_and_closed_above() -> None:
    confidence = np.array([0.0, 0.25, 0.2500001, 0.5, 1.0])
    bins = reliability(np.ones(5, dtype=bool), confidence, bins=4)
    assert [b.clips for b in bins] == [2, 2, 0, 1]


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.95, 0.85, 0.8, 0.3, 0.35])
    correct = np.array([True, True, False, True, True, False])
    bins = reliability(correct, confidence, bins=2)
    assert (bins[0].clips, bins[0].accuracy, bins[0].confidence) == (2, 0.5, pytest.approx(0.325))
    assert (bins[1].clips, bins[1].accuracy, bins[1].confidence) == (4, 0.75, pytest.approx(0.875))
    assert calibration_error(bins) == pytest.approx((2 * 0.175 + 4 * 0.125) / 6)


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 50_000)
    honest = rng.random(50_000) < confidence
    assert calibration_error(reliability(honest, confidence)) < 0.02
    assert calibration_error(reliability(honest, np.ones(50_000))) == pytest.approx(0.35, abs=0.01)


def test_a_temperature_undoes_overconfidence() -> None:
    """Labels drawn from p, predictions sharpened to p³: the likeliest temperature is 3."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.full(4, 0.7), 20_000)
    truth = (honest.cumsum(axis=1) > rng.random((len(honest), 1))).argmax(axis=1)
    sharp = temper(honest, 1 / 3)
    temperature = fit_temperature(truth, sharp)
    assert temperature == pytest.approx(3, rel=0.05)
    np.testing.assert_allclose(temper(sharp, 3), honest, atol=1e-6)

    def error(probabilities: np.ndarray) -> float:
        return calibration_error(reliability(probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)))

    assert error(temper(sharp, temperature)) < 0.02 < error(sharp)


def test_tempering_keeps_the_order_and_survives_zeros() -> None:
    rows = np.array([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    soft = temper(rows, 20)
    assert np.isfinite(soft).all() and soft.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    assert 0.05 <= fit_temperature(np.array([0, 2]), rows) <= 20
