"""Logistic regression against the conditions of its optimum, and folds that keep groups whole."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.bundle.fusion import softmax
from ser_batch.heads.logistic import PENALTIES, choose, cross_validated, fit, folds


def problem(rows: int = 240, width: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of very different scales, and labels of very different numbers that depend on them."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, width)) * np.geomspace(0.01, 100, width) + 5
    scores = (inputs - 5) / np.geomspace(0.01, 100, width) @ rng.normal(size=(width, classes)) + [2, 0, 0]
    return inputs, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1).astype(np.int64)


@pytest.mark.parametrize("width", [12, 400])
def test_it_is_the_optimum_of_the_weighed_and_penalised_loss(width: int) -> None:
    inputs, labels = problem(width=width)
    counts = np.bincount(labels)
    assert counts.max() > 1.5 * counts.min()
    weights = len(labels) / (3 * counts[labels])
    mean = np.average(inputs, axis=0, weights=weights)
    scale = np.sqrt(np.average((inputs - mean) ** 2, axis=0, weights=weights))
    rows = (inputs - mean) / scale
    for penalty, linear in zip(PENALTIES, fit(inputs, labels, 3, PENALTIES), strict=True):
        weight = linear.weight * scale
        errors = weights[:, None] * (softmax(inputs @ linear.weight.T + linear.bias) - np.eye(3)[labels])
        slope = errors.T @ rows + penalty * len(labels) * weight
        # Every derivative is next to nothing, beside what it is where all is zero.
        start = np.abs((weights[:, None] * (1 / 3 - np.eye(3)[labels])).T @ rows).max()
        assert np.abs(slope).max() < 2e-3 * start
        assert np.abs(errors.sum(axis=0)).max() < 0.05
        np.testing.assert_allclose(linear(inputs), softmax(inputs @ linear.weight.T + linear.bias))


def test_a_constant_column_changes_nothing() -> None:
    inputs, labels = problem()
    (plain,) = fit(inputs, labels, 3, [0.1])
    (beside,) = fit(np.concatenate([inputs, np.full((len(inputs), 1), 1e6)], axis=1), labels, 3, [0.1])
    assert (beside.weight[:, -1] == 0).all()
    np.testing.assert_allclose(beside.weight[:, :-1], plain.weight, rtol=1e-3, atol=1e-6)


def test_groups_are_whole_and_labels_spread() -> None:
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 23, 600), rng.integers(0, 4, 600)
    home = folds(labels, groups, 5)
    assert set(home) == set(range(5))
    assert all(len(set(home[groups == group])) == 1 for group in range(23))
    shares = np.array([np.bincount(labels[home == fold], minlength=4) / np.bincount(labels) for fold in range(5)])
    assert shares.min() > 0.1 and shares.max() < 0.32
    alone = folds(labels, None, 5)
    counts = np.array([np.bincount(labels[alone == fold], minlength=4) for fold in range(5)])
    assert np.ptp(counts, axis=0).max() <= 1
    np.testing.assert_array_equal(folds(labels, groups, 40), folds(labels, groups, 23))


def test_what_a_group_has_in_common_is_no_knowledge() -> None:
    """Each group has one label and a column of its own: by rows a perfect score, by groups none."""
    groups = np.repeat(np.arange(16), 15)
    labels = (groups % 2).astype(np.int64)
    inputs = np.eye(16)[groups] + 0.01 * np.random.default_rng(0).normal(size=(len(groups), 16))
    by_row, _ = cross_validated(inputs, labels, None, 2)
    by_group, count = cross_validated(inputs, labels, groups, 2)
    assert (by_row.argmax(axis=1) == labels).mean() > 0.99
    assert (by_group.argmax(axis=1) == labels).mean() < 0.7
    assert count == 8  # one group of each label in a fold


def test_rows_are_judged_by_models_that_have_not_seen_them() -> None:
    inputs, labels = problem(rows=120)
    noise = np.random.default_rng(1).permutation(labels)
    said, _ = cross_validated(inputs, noise, None, 3)
    recalls = [(said[noise == label].argmax(axis=1) == label).mean() for label in range(3)]
    assert np.mean(recalls) < 0.5
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert choose(inputs, noise, None, 3) > choose(inputs, labels, None, 3)


def test_two_groups_are_enough() -> None:
    inputs, labels = problem()
    said, count = cross_validated(inputs, labels, np.arange(len(labels)) % 2, 3)
    assert count == 2 and (said.argmax(axis=1) == labels).mean() > 0.6
