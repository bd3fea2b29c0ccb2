"""How sure a measured figure is: intervals, and a paired test of two models on the same clips.

Sources: Wilson, JASA 22 (1927); Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13;
McNemar, Psychometrika 12 (1947), in its exact binomial form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError

LEVEL = 0.95
RESAMPLES = 1000
ENOUGH_GROUPS = 5
"""From how many groups, such as speakers, on a bootstrap draws them."""


class Interval(NamedTuple):
    """Where a figure lies with the stated confidence."""

    low: float
    high: float


def percent(value: float, interval: Interval, digits: int = 2) -> str:
    """A share with its interval, in percent: "62.50 [55.1, 69.3]"."""
    return f"{100 * value:.{digits}f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of two models on the same clips."""

    only_first: int
    """Clips that only the first model got right."""
    only_second: int
    """Clips that only the second model got right."""
    p: float
    """Two-sided: the chance of a difference at least this large if both were equally good."""


def wilson_interval(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson score interval of a share of `hits` among `trials`, within [0, 1]."""
    if not 0 <= hits <= trials or trials < 1:
        raise InputError("no share", got=f"{hits} of {trials}", expected="0 <= hits <= trials, trials >= 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = hits / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    # The ends are exactly 0 and 1 there; rounding is not.
    return Interval(0.0 if hits == 0 else low, 1.0 if hits == trials else high)


def bootstrap_interval(
    metric: Callable[..., float],
    *columns: npt.NDArray[Any],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `metric(*columns)`, the rows of all columns drawn together.

    Args:
        metric: takes arrays of the shapes of `columns`.
        columns: (N, …) each, a row per clip.
        level: share of resamples inside the interval.
        resamples: draws of N clips with replacement.
        seed: of the draws.
    """
    rows = len(columns[0])
    if rows < 1 or any(len(column) != rows for column in columns):
        raise InputError("a bootstrap needs rows, as many in each column", got=[len(c) for c in columns])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(rows, size=rows) for _ in range(resamples))
    values = [metric(*(column[draw] for column in columns)) for draw in draws]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def drawn_counts(cells: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Counts of bootstrap draws (RESAMPLES, K), of the counts `cells` (K,) that a figure is made of.

    Clips drawn with replacement fall into the cells as a multinomial says, so the counts are drawn and no clip is: the
    distribution is the same, whatever the number of clips. With `cells` (G, K) of G groups, groups are drawn instead,
    each with all its clips.
    """
    rng = np.random.default_rng(seed)
    if cells.ndim == 1:
        return np.asarray(rng.multinomial(cells.sum(), cells / cells.sum(), RESAMPLES))
    return np.asarray(rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), RESAMPLES) @ cells)


def numbered_groups(members: npt.ArrayLike) -> npt.NDArray[np.int64] | None:
    """Each clip's group (N,) as a number from 0; None: there are too few to draw among."""
    names, numbers = np.unique(members, return_inverse=True)
    return numbers if len(names) >= ENOUGH_GROUPS else None


def counts_by_group(
    cells: npt.NDArray[np.int64], kinds: int, groups: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    """How many clips fall into each of `kinds` cells, (K,); (G, K) by group.

    Args:
        cells: (N,) each clip's.
        groups: (N,) each clip's, see `numbered_groups`; None: there are none.
    """
    if groups is None:
        return np.bincount(cells, minlength=kinds)
    count = int(groups.max()) + 1
    return np.bincount(groups * kinds + cells, minlength=count * kinds).reshape(count, kinds)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Compare two models by which clips (N,) each got right; clips both got right or wrong say nothing."""
    if first.shape != second.shape:
        raise InputError("McNemar's test needs the same clips", got=f"{first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    return McNemar(only_first, only_second, binomial_test(only_first, only_second))


def binomial_test(heads: int, tails: int) -> float:
    """Two-sided p of `heads` against `tails` for a fair coin, exact; 1 if there was no throw."""
    throws, fewer = heads + tails, min(heads, tails)
    term = total = 1  # C(n, 0), in integers: no rounding, no overflow
    for k in range(fewer):
        term = term * (throws - k) // (k + 1)
        total += term
    return min(1.0, float(Fraction(2 * total, 2**throws)))
