"""Classification metrics and their uncertainty, in numpy: one implementation for training and for served files.

Conventions: `truth` and `predicted` are (N,) integer class indices; a class that is never predicted has precision
0; unweighted average recall (UA) is macro recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class MacroScores:
    """Macro averages over the classes that occur."""

    precision: float
    recall: float
    f1: float


def accuracy(truth: Indices, predicted: Indices) -> float:
    """Share of examples predicted right."""
    return float(np.mean(truth == predicted))


def confusion_matrix(truth: Indices, predicted: Indices, classes: int) -> npt.NDArray[np.int64]:
    """Counts (classes, classes): rows are the truth, columns the prediction."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix


def macro_scores(truth: Indices, predicted: Indices, classes: int) -> MacroScores:
    """Macro precision, recall (= UA) and F1 over the classes that occur in `truth` or `predicted`."""
    matrix = confusion_matrix(truth, predicted, classes).astype(float)
    hits, actual, claimed = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    occurs = actual + claimed > 0
    precision = np.divide(hits, claimed, out=np.zeros(classes), where=claimed > 0)
    recall = np.divide(hits, actual, out=np.zeros(classes), where=actual > 0)
    f1 = np.divide(2 * hits, actual + claimed, out=np.zeros(classes), where=occurs)
    return MacroScores(*(float(score[occurs].mean()) for score in (precision, recall, f1)))
