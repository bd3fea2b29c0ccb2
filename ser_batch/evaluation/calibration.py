"""How far the winning probability can be taken at its word.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017: 15 bins of equal width, each open at
its lower end and closed at its upper one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15
SMALLEST = 1e-30
"""Probabilities are not taken below this in logarithms."""


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
