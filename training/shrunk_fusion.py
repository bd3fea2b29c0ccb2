"""Logistic regression over the branches' probabilities that is shrunk towards one weight a branch.

A matrix of C × K·C weights, fitted on some thousand clips, learns those clips: it can lose against a plain weighted
sum of the branches. Here the logits are Σ_k a_k P_k + D [P_1; …; P_K] + b, where a weight a branch, a_k, is free and D
and b are penalised: however strong the penalty, what is left is the best weighted sum, sharpened. The result is served
as the one matrix that it is, W = [a_1 I; …; a_K I] + D.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

BLOCKS = 5
"""Parts of the clips that cross-validation leaves out in turn: runs of them as they come, so that the clips of a
speaker stay together in a corpus sorted by speaker."""


def fit_shrunk(
    probabilities: np.ndarray, targets: np.ndarray, penalties: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The matrix with the penalty whose cross-validated likelihood is best.

    Args:
        probabilities: (N, K, C) of K branches.
        targets: (N,) class indices.
        penalties: of ½ ‖D‖² + ½ ‖b‖², beside the mean cross-entropy of a clip.

    Returns weight (C, K · C) and bias (C,), float64, and the penalty.
    """
    likelihoods = [_likelihood(probabilities, targets, penalty) for penalty in penalties]
    chosen = penalties[int(np.argmax(likelihoods))]
    return (*_fit(probabilities, targets, chosen), chosen)


def _likelihood(probabilities: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    """Mean log-likelihood of the blocks under matrices fitted on the others."""
    rows, total = np.arange(len(targets)), 0.0
    for block in np.array_split(rows, min(BLOCKS, len(rows))):
        rest = np.setdiff1d(rows, block)
        weight, bias = _fit(probabilities[rest], targets[rest], penalty)
        logits = probabilities[block].reshape(len(block), -1) @ weight.T + bias
        total += float(log_softmax(logits, axis=1)[np.arange(len(block)), targets[block]].sum())
    return total / len(rows)


def _fit(probabilities: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    count, branches, classes = probabilities.shape
    probabilities = probabilities.astype(np.float64)
    flat, wanted = probabilities.reshape(count, -1), np.eye(classes)[targets]

    def matrix(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares, rest = parameters[:branches], parameters[branches:].reshape(classes, -1)
        return np.kron(shares, np.eye(classes)) + rest[:, :-1], rest[:, -1]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = matrix(parameters)
        scores = log_softmax(flat @ weight.T + bias, axis=1)
        error = (np.exp(scores) - wanted) / count  # by the logits
        penalised = parameters[branches:]
        by_share = np.einsum("nc,nkc->k", error, probabilities)
        by_rest = np.concatenate([error.T @ flat, error.sum(axis=0)[:, None]], axis=1).ravel() + penalty * penalised
        value = -(wanted * scores).sum() / count + 0.5 * penalty * penalised @ penalised
        return float(value), np.concatenate([by_share, by_rest])

    start = np.concatenate([np.ones(branches), np.zeros(classes * (branches * classes + 1))])
    return matrix(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x)
