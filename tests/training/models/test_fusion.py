"""Fusions: the exact one is scikit-learn's; of the shrunk one, what a strong penalty leaves and a weak one finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from ser_batch.errors import TrainingError
from training.config import FusionConfig, RunConfig
from training.models.fusion import fit_logistic, fit_shrunk, stacked

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


def test_the_exact_fusion_of_two_classes_is_scikit_learns(tmp_path: Path) -> None:
    LogisticRegression = pytest.importorskip("sklearn.linear_model").LogisticRegression
    rng, truth = np.random.default_rng(0), np.arange(40) % 2
    found = {name: rng.dirichlet(1 + 2 * np.eye(2)[0], 40).astype(np.float32) for name in ("a", "b")}
    config, stage = FusionConfig(solver="lbfgs"), RunConfig().fusion_stage
    fitted = fit_logistic(config, stage, (found, truth), (found, truth), tmp_path, 0)
    theirs = LogisticRegression(C=1.0, max_iter=10_000).fit(stacked(found), truth).predict_proba(stacked(found))
    np.testing.assert_allclose(fitted(found), theirs, atol=1e-5)


def test_a_shrunk_fusion_of_sets_of_one_class_is_that_of_class_indices() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), (40, 2)).astype(np.float32)
    classes = rng.integers(3, size=40)
    by_index = fit_shrunk(probabilities, classes, 0.1)
    by_set = fit_shrunk(probabilities, np.eye(3, dtype=np.int8)[classes], 0.1)
    for one, other in zip(by_index, by_set, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    unasked = np.eye(3, dtype=np.int8)[classes]
    unasked[classes != 2, 2] = -1  # nothing but itself ever speaks of the third class: it is not pushed down
    _, bias = fit_shrunk(probabilities, unasked, 0.1)
    assert bias[2] > by_index[1][2]
