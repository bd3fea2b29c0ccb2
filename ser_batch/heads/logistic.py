"""Multinomial logistic regression with an L2 penalty, in numpy, and the folds that choose and judge the penalty.

Each label counts alike, whatever its number of rows: rows are weighed by the inverse of it, as unweighted average
recall weighs them. The optimum is found by the fixed upper bound of the curvature, ½ (XᵀX ⊗ I), with Nesterov's
acceleration and restarts: in the principal axes of the rows the bound is diagonal, so a step costs two products, and
all penalties share the axes. Axes beyond the number of rows carry no weight at the optimum, so an embedding may be
wider than the table is long. Sources: Böhning, Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 44
(1992); O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes, Found. Comput. Math. 15 (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import softmax
from ser_batch.evaluation.metrics import SMALLEST

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

PENALTIES = tuple(float(penalty) for penalty in np.geomspace(1e-3, 3, 8))
"""What λ is chosen from, for each row: the loss is Σ wᵢ · −log p(yᵢ) + ½ λ N |W|², of standardised inputs."""
FOLDS = 10
"""Folds at most that judge a penalty, and within each of them half as many that choose it."""
_STEPS = 1_000
_TOLERANCE = 1e-5
_FLAT = 1e-10
"""Axes with a smaller share of the largest one's variance are left out: they are rounding."""


@dataclass(frozen=True)
class Linear:
    """Logits X Wᵀ + b of raw inputs: standardisation is inside."""

    weight: Matrix
    """(L, P)"""
    bias: Matrix
    """(L,)"""

    def __call__(self, inputs: Matrix) -> Matrix:
        """Probabilities (N, L) of (N, P)."""
        return softmax(inputs @ self.weight.T + self.bias)


def fit(inputs: Matrix, labels: Indices, classes: int, penalties: Sequence[float] = PENALTIES) -> list[Linear]:
    """The optimum for each of `penalties`, in their order.

    Args:
        inputs: (N, P).
        labels: (N,) class indices, each of `classes` at least once.
    """
    weights = _row_weights(labels, classes)
    mean = weights @ inputs / weights.sum()
    spread = np.sqrt(weights @ (inputs - mean) ** 2 / weights.sum())
    # What never changes says nothing, and must not be divided by.
    scale = np.where(spread > 1e-9 * max(float(spread.max()), 1e-300), spread, np.inf)
    rows = (inputs - mean) / scale
    axes, variances = _axes(rows, weights)
    found: dict[float, Linear] = {}
    start = np.zeros((classes, len(variances) + 1))
    for penalty in sorted(penalties, reverse=True):  # from the smoothest on, each begins where the last one ended
        start = _optimum(rows @ axes, labels, weights, variances, penalty * len(rows), start)
        weight = start[:, 1:] @ axes.T / scale
        found[penalty] = Linear(weight, start[:, 0] - weight @ mean)
    return [found[penalty] for penalty in penalties]


def _row_weights(labels: Indices, classes: int) -> Matrix:
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(len(labels) / ((counts > 0).sum() * counts[labels]), dtype=np.float64)


def _axes(rows: Matrix, weights: Matrix) -> tuple[Matrix, Matrix]:
    """Principal axes (P, r) of weighed rows, and the sum of squares (r,) along each; by the smaller Gram matrix."""
    weighed = np.sqrt(weights)[:, None] * rows
    wide = rows.shape[1] > len(rows)
    variances, vectors = np.linalg.eigh(weighed @ weighed.T if wide else weighed.T @ weighed)
    kept = variances > _FLAT * max(float(variances[-1]), 1e-300)
    variances, vectors = variances[kept], vectors[:, kept]
    return (weighed.T @ vectors / np.sqrt(variances) if wide else vectors), variances


def _optimum(
    rows: Matrix, labels: Indices, weights: Matrix, variances: Matrix, penalty: float, start: Matrix
) -> Matrix:
    """Bias (first column) and weights along the axes, (L, r + 1); the bias has no penalty."""
    design = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    truth = np.eye(len(start))[labels]
    penalties = np.concatenate([[0.0], np.full(len(variances), penalty)])
    # The rows are centred, so the bias is an axis of its own.
    curvature = 0.5 * np.concatenate([[weights.sum()], variances]) + penalties
    here, ahead, momentum = start, start, 1.0
    there: Matrix
    for _ in range(_STEPS):
        errors = weights[:, None] * (softmax(design @ ahead.T) - truth)
        slope = errors.T @ design + penalties * ahead
        there = ahead - slope / curvature
        if np.abs(slope / np.sqrt(curvature)).max() < _TOLERANCE * np.sqrt(len(rows)):
            return there
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        # Where the momentum points uphill it is let go of.
        if np.sum(slope * (there - here)) > 0:
            momentum = following = 1.0
        ahead = there + (momentum - 1) / following * (there - here)
        here, momentum = there, following
    return here


def folds(labels: Indices, groups: Indices | None, count: int, seed: int = 0) -> Indices:
    """Which of `count` folds at most each row belongs to, (N,): groups whole, labels spread as evenly as may be.

    Without groups each label is dealt out over the folds by chance; with them the largest groups come first, each to
    the fold where its labels are fewest so far.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        found = np.empty(len(labels), dtype=np.int64)
        dealt = 0
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            found[rows] = (dealt + np.arange(len(rows))) % count
            dealt += len(rows)
        return found
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (members, labels), 1)
    shares = counts / counts.sum(axis=0).clip(1)
    held = np.zeros((min(count, len(names)), counts.shape[1]))
    home = np.empty(len(names), dtype=np.int64)
    order = rng.permutation(len(names))
    for group in order[np.argsort(-counts[order].sum(axis=1), kind="stable")]:
        home[group] = int(((held + shares[group]) ** 2 - held**2).sum(axis=1).argmin())
        held[home[group]] += shares[group]
    return home[members]


def choose(inputs: Matrix, labels: Indices, groups: Indices | None, classes: int, count: int = FOLDS // 2) -> float:
    """The penalty under which rows left out are likeliest, each label counting alike."""
    # Of one group alone nothing can be left out as a whole.
    home = folds(labels, groups if groups is not None and len(np.unique(groups)) > 1 else None, count)
    weights, losses = _row_weights(labels, classes), np.zeros(len(PENALTIES))
    for test in (home == fold for fold in np.unique(home)):
        for index, said in enumerate(_left_out(inputs, labels, test, classes, PENALTIES)):
            likelihood = said[np.arange(len(said)), labels[test]]
            losses[index] -= (weights[test] * np.log(np.maximum(likelihood, SMALLEST))).sum()
    return PENALTIES[int(losses.argmin())]


def cross_validated(inputs: Matrix, labels: Indices, groups: Indices | None, classes: int) -> tuple[Matrix, int]:
    """Probabilities (N, L) of each row by a model that saw neither it nor its group, and how many models there were.

    The penalty is chosen anew within each fold's other rows, so that no row has a say in its own figure.
    """
    found, home = np.zeros((len(labels), classes)), folds(labels, groups, FOLDS)
    for test in (home == fold for fold in np.unique(home)):
        known = None if groups is None else groups[~test]
        penalty = choose(inputs[~test], labels[~test], known, classes)
        (found[test],) = _left_out(inputs, labels, test, classes, [penalty])
    return found, len(np.unique(home))


def _left_out(
    inputs: Matrix, labels: Indices, test: npt.NDArray[np.bool_], classes: int, penalties: Sequence[float]
) -> list[Matrix]:
    """Probabilities (n, L) of the rows `test` by models of the others, one for each penalty; 0 of labels they lack."""
    known = np.unique(labels[~test])
    found = []
    for linear in fit(inputs[~test], np.searchsorted(known, labels[~test]), len(known), penalties):
        found.append(np.zeros((int(test.sum()), classes)))
        found[-1][:, known] = linear(inputs[test])
    return found
