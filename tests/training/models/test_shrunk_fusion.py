"""The fusion that is shrunk towards a weighted sum: what a strong penalty leaves, and what a weak one finds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from ser_batch.errors import TrainingError
from training.config import FusionConfig
from training.models.shrunk_fusion import fit_shrunk

CLASSES = 3


def clips(count: int, seed: int = 0, swapped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 2, C) of a good branch and one of noise; `swapped`, the good one calls class 0 1 and 1 0."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(CLASSES, size=count)
    said = np.array([1, 0, 2])[targets] if swapped else targets
    logits = rng.normal(size=(count, 2, CLASSES))
    logits[np.arange(count), 0, said] += 3
    odds = np.exp(logits)
    return odds / odds.sum(axis=2, keepdims=True), targets


def right(weight: np.ndarray, bias: np.ndarray, data: tuple[np.ndarray, np.ndarray]) -> float:
    rows, targets = data
    return float(((rows.reshape(len(rows), -1) @ weight.T + bias).argmax(axis=1) == targets).mean())


def test_a_strong_penalty_leaves_the_weighted_sum_and_the_better_branch_weighs_more() -> None:
    weight, bias = fit_shrunk(*clips(300), 1e6)
    first, second = weight[:, :CLASSES], weight[:, CLASSES:]
    np.testing.assert_allclose(first, first[0, 0] * np.eye(CLASSES), atol=1e-4)
    np.testing.assert_allclose(second, second[0, 0] * np.eye(CLASSES), atol=1e-4)
    np.testing.assert_allclose(bias, 0, atol=1e-4)
    assert first[0, 0] > 3 > abs(second[0, 0]) * 3


def test_a_weak_penalty_finds_what_no_weighted_sum_can_say() -> None:
    weight, bias = fit_shrunk(*clips(300, swapped=True), 1e-4)
    assert right(weight, bias, clips(300, seed=1, swapped=True)) > 0.8
    weight, bias = fit_shrunk(*clips(300, swapped=True), 1e6)
    assert right(weight, bias, clips(300, seed=1, swapped=True)) < 0.5


def test_the_shrinkage_is_checked() -> None:
    with pytest.raises(TrainingError, match=r"shrinkage.*got 0.*a positive number"):
        FusionConfig(shrinkage=0)


def test_it_is_an_optimum() -> None:
    rows, targets = clips(150)

    def loss(weight: np.ndarray, bias: np.ndarray) -> float:
        logits = rows.reshape(len(rows), -1) @ weight.T + bias
        likelihood = logits[np.arange(len(rows)), targets] - np.log(np.exp(logits).sum(axis=1))
        rest = weight - np.concatenate([a * np.eye(CLASSES) for a in _shares(weight)], axis=1)
        return float(-likelihood.mean() + 0.005 * ((rest**2).sum() + (bias**2).sum()))

    weight, bias = fit_shrunk(rows, targets, 0.01)
    rng, best = np.random.default_rng(0), loss(weight, bias)
    for _ in range(50):
        step = rng.normal(scale=0.05, size=(CLASSES, 2 * CLASSES + 1))
        assert loss(weight + step[:, :-1], bias + step[:, -1]) > best - 1e-6


def _shares(weight: np.ndarray) -> list[float]:
    """The weight a branch from which the rest of the matrix is smallest: the mean of each diagonal."""
    return [float(np.diag(block).mean()) for block in np.split(weight, 2, axis=1)]
