"""The bias under which the mean probability of an archive equals stated shares.

With logits z = log p and q = softmax(z + b), the bias b sought makes mean(q) = s. It is the minimum of the convex
mean(logsumexp(z + b)) - s·b: the gradient is mean(q) - s, the Hessian mean(diag(q) - q qᵀ). The correction of
posteriors to other priors by factors on each class is that of Saerens et al., Adjusting the Outputs of a Classifier to
New a Priori Probabilities, Neural Computation 14 (2002); here the factors are found from the shares, so that a model
that says one label too often everywhere is put right, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError
from ser_batch.evaluation.calibration import SMALLEST

Floats = npt.NDArray[np.float64]
TOLERANCE = 1e-9
"""Largest difference of a mean probability from its share."""
STEPS = 200
ROWS = 1 << 16
"""Rows that are in logarithms at a time."""


def biased(probabilities: npt.NDArray[np.floating], bias: Floats, temperature: float = 1.0) -> Floats:
    """softmax(log p / temperature + bias).

    Args:
        probabilities: (N, C).
        bias: (C,) or (N, C); -inf for a label that is no answer.
        temperature: above 0; 1 changes nothing.

    Returns:
        (N, C), rows that sum to 1.
    """
    logits = np.log(np.maximum(probabilities, SMALLEST).astype(np.float64)) / temperature + bias
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def bias_for_shares(probabilities: npt.NDArray[np.floating], shares: Floats) -> Floats:
    """The bias (C,) under which the mean of the rows of `probabilities` (N, C) is `shares` (C,).

    It is 0 on average over the labels that have a share; a label of share 0 has -inf. Newton's method, each step
    halved until the objective falls.

    Raises:
        InputError: there are no rows.
    """
    if not len(probabilities):
        raise InputError("there are no scored rows to find a bias from")
    held = shares > 0
    bias = np.full(len(shares), -np.inf)
    bias[held] = _newton(np.ascontiguousarray(probabilities[:, held]), shares[held] / shares[held].sum())
    return bias


def _newton(probabilities: npt.NDArray[np.floating], shares: Floats) -> Floats:
    # A first guess that is right where rows are alike.
    bias = np.log(shares) - np.log(np.maximum(probabilities.mean(axis=0, dtype=np.float64), SMALLEST))
    value, gradient, hessian = _objective(probabilities, shares, bias)
    for _ in range(STEPS):
        if np.abs(gradient).max() <= TOLERANCE:
            break
        # The objective is flat along (1, …, 1); near-certain rows make it flat elsewhere, too.
        ridge = 1e-12 + 1e-9 * np.trace(hessian)
        step = np.linalg.solve(hessian + ridge * np.eye(len(bias)) + 1 / len(bias), -gradient)
        step *= min(1.0, 8.0 / max(np.abs(step).max(), SMALLEST))
        for _ in range(40):
            found = _objective(probabilities, shares, bias + step)
            if found[0] <= value + 1e-4 * (gradient @ step) or np.abs(step).max() < 1e-12:
                break
            step /= 2
        bias = bias + step
        value, gradient, hessian = found
    return np.asarray(bias - bias.mean())


def _objective(
    probabilities: npt.NDArray[np.floating], shares: Floats, bias: Floats
) -> tuple[float, Floats, npt.NDArray[np.float64]]:
    """The convex objective, its gradient (C,) and its Hessian (C, C)."""
    rows, total = len(probabilities), 0.0
    mean, outer = np.zeros(len(shares)), np.zeros((len(shares), len(shares)))
    for start in range(0, rows, ROWS):
        logits = np.log(np.maximum(probabilities[start : start + ROWS], SMALLEST).astype(np.float64)) + bias
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        sums = powers.sum(axis=1, keepdims=True)
        total += float((highest + np.log(sums)).sum())
        powers /= sums
        mean += powers.sum(axis=0)
        outer += powers.T @ powers
    mean /= rows
    return total / rows - float(shares @ bias), mean - shares, np.diag(mean) - outer / rows
