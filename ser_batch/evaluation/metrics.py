"""Classification metrics and calibration in numpy: one implementation for training and for served files.

Conventions: `truth` and `predicted` are (N,) integer class indices; a class that is never predicted has
precision 0; macro scores average over the classes that occur in truth or prediction (as scikit-learn does),
unweighted average recall (UA) over those that occur in truth. Where every class occurs, UA is macro recall.

Calibration: Guo et al., On Calibration of Modern Neural Networks, ICML 2017: 15 bins of equal width, each open at
its lower end and closed at its upper one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError
from ser_batch.evaluation.statistics import LEVEL, Interval, drawn_counts, wilson_interval

BINS = 15
SMALLEST = 1e-30
"""Probabilities are not taken below this in logarithms."""
Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ReliabilityBin:
    """The clips whose winning probability lies in (`low`, `high`]."""

    low: float
    high: float
    clips: int
    confidence: float
    """Mean winning probability; 0 without clips."""
    accuracy: float
    """Share predicted right; 0 without clips."""


def reliability(
    correct: npt.NDArray[np.bool_], confidence: npt.NDArray[np.floating], bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Bins over the winning probabilities of clips.

    Args:
        correct: (N,) whether each clip was predicted right.
        confidence: (N,) its winning probability, in [0, 1].
        bins: of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    clips = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values.astype(np.float64), minlength=bins) for values in (confidence, correct)]
    means = [np.divide(total, clips, out=np.zeros(bins), where=clips > 0) for total in sums]
    return tuple(
        ReliabilityBin(float(edges[i]), float(edges[i + 1]), int(clips[i]), float(means[0][i]), float(means[1][i]))
        for i in range(bins)
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean over clips of their bin's |accuracy − confidence|."""
    total = sum(b.clips for b in bins)
    return sum(b.clips * abs(b.accuracy - b.confidence) for b in bins) / total


def temper(probabilities: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) as if their logits had been divided by `temperature`: softmax(log p / T)."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(truth: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]) -> float:
    """The temperature in [0.05, 20] that makes `truth` (N,) likeliest under `probabilities` (N, C).

    Fit it on clips that decide nothing else. The negative log-likelihood is convex in 1 / T (Guo et al., section
    4.2), so a golden-section search finds its minimum.
    """

    def loss(inverse: float) -> float:
        likelihood = temper(probabilities, 1 / inverse)[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(likelihood, SMALLEST)).mean())

    low, high, golden = 1 / 20, 20.0, (5**0.5 - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return 2 / (low + high)


@dataclass(frozen=True)
class MacroScores:
    """Macro averages over the classes that occur."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassScores:
    """How one class fared."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Clips whose truth it is."""


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of one model on one set of clips."""

    labels: tuple[str, ...]
    clips: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    """Wilson, 95 %."""
    macro: MacroScores
    ua: float
    """Unweighted average recall."""
    ua_interval: Interval
    """Percentile bootstrap over clips, 95 %, seeded."""
    ece: float
    """Expected calibration error, 15 equal-width bins of the winning probability."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts; rows are the truth, columns the prediction, both in the order of `labels`."""
    reliability: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types, every number finite."""
        plain = asdict(self)
        for name in ("labels", "accuracy_interval", "ua_interval", "classes", "reliability"):
            plain[name] = list(plain[name])
        return plain | {"confusion": [list(row) for row in self.confusion]}


def accuracy(truth: Indices, predicted: Indices) -> float:
    """Share of examples predicted right."""
    return float(np.mean(truth == predicted))


def confusion_matrix(truth: Indices, predicted: Indices, classes: int) -> npt.NDArray[np.int64]:
    """Counts (classes, classes): rows are the truth, columns the prediction."""
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def macro_scores(truth: Indices, predicted: Indices, classes: int) -> MacroScores:
    """Macro precision, recall and F1 over the classes that occur in `truth` or `predicted`."""
    matrix = confusion_matrix(truth, predicted, classes)
    occurs = matrix.sum(axis=1) + matrix.sum(axis=0) > 0
    return MacroScores(*(float(score[occurs].mean()) for score in _per_class(matrix)))


def unweighted_average_recall(truth: Indices, predicted: Indices, classes: int) -> float:
    """UA: mean recall of the classes that occur in `truth`."""
    matrix = confusion_matrix(truth, predicted, classes)
    actual = matrix.sum(axis=1)
    return float((np.diag(matrix)[actual > 0] / actual[actual > 0]).mean())


def recall_interval(matrix: npt.NDArray[np.int64], *, seed: int = 0) -> Interval:
    """Percentile bootstrap interval, 95 %, of the UA of a confusion matrix (classes, classes).

    Clips are drawn; of matrices (groups, classes, classes), groups.
    """
    drawn = drawn_counts(matrix.reshape(*matrix.shape[:-2], -1), seed).reshape(-1, *matrix.shape[-2:])
    actual, hits = drawn.sum(axis=2), np.diagonal(drawn, axis1=1, axis2=2)
    recalls = np.divide(hits, actual, out=np.zeros(actual.shape), where=actual > 0)
    low, high = np.quantile(recalls.sum(axis=1) / (actual > 0).sum(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def evaluate(truth: Indices, probabilities: Floats, labels: Sequence[str], *, seed: int = 0) -> Evaluation:
    """Measure a model by its `probabilities` (N, C) of clips whose class indices are `truth` (N,).

    The prediction is the first largest probability; `seed` is the bootstrap's.

    Raises InputError unless there are clips, shapes that agree with `labels`, and numbers that can be
    probabilities and class indices.
    """
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    _check(truth, probabilities, labels)
    classes, predicted = len(labels), probabilities.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, classes)
    correct = int(np.diag(matrix).sum())
    bins = reliability(truth == predicted, probabilities.max(axis=1))
    per_class = zip(labels, *_per_class(matrix), matrix.sum(axis=1), strict=True)
    return Evaluation(
        labels=tuple(labels),
        clips=len(truth),
        correct=correct,
        accuracy=correct / len(truth),
        accuracy_interval=wilson_interval(correct, len(truth)),
        macro=macro_scores(truth, predicted, classes),
        ua=unweighted_average_recall(truth, predicted, classes),
        ua_interval=recall_interval(matrix, seed=seed),
        ece=calibration_error(bins),
        classes=tuple(ClassScores(label, float(p), float(r), float(f), int(n)) for label, p, r, f, n in per_class),
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        reliability=bins,
    )


def _per_class(matrix: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 (C,) each; 0 where a denominator is."""
    hits, actual, claimed = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)

    def ratio(above: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> Floats:
        return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)

    return ratio(hits, claimed), ratio(hits, actual), ratio(2 * hits, actual + claimed)


def _check(truth: Indices, probabilities: Floats, labels: Sequence[str]) -> None:
    if truth.ndim != 1 or not len(truth):
        raise InputError("there is no clip to evaluate", got=f"truth of shape {truth.shape}")
    if probabilities.shape != (len(truth), len(labels)):
        raise InputError(
            "probabilities do not fit truth and labels",
            got=f"shape {probabilities.shape}",
            expected=f"{(len(truth), len(labels))}",
        )
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= len(labels):
        raise InputError("truth holds what is no class index", expected=f"integers from 0 to {len(labels) - 1}")
    # float32 rows need not be within the interval to the last bit
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1.001).all()):
        raise InputError("probabilities hold a number that is none", expected="finite numbers from 0 to 1")
