"""Logistic regression over the branches' probabilities that is shrunk towards one weight a branch.

A matrix of C × K·C weights, fitted on some thousand clips, learns those clips: it can lose against a plain weighted
sum of the branches. Here the logits are Σ_k a_k P_k + D [P_1; …; P_K] + b, where a weight a branch, a_k, is free and D
and b are penalised: however strong the penalty, what is left is the best weighted sum, sharpened. The result is served
as the one matrix that it is, W = [a_1 I; …; a_K I] + D.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax


def fit_shrunk(probabilities: np.ndarray, targets: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """The weight (C, K · C) and bias (C,), float64, of least mean cross-entropy + ½ shrinkage (‖D‖² + ‖b‖²).

    Args:
        probabilities: (N, K, C) of K branches.
        targets: (N,) class indices.
    """
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
        by_rest = np.concatenate([error.T @ flat, error.sum(axis=0)[:, None]], axis=1).ravel() + shrinkage * penalised
        value = -(wanted * scores).sum() / count + 0.5 * shrinkage * penalised @ penalised
        return float(value), np.concatenate([by_share, by_rest])

    start = np.concatenate([np.ones(branches), np.zeros(classes * (branches * classes + 1))])
    return matrix(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x)
