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
