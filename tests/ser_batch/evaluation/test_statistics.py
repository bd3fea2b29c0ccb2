"""Intervals and the paired test against published and hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ser_batch.errors import InputError
from ser_batch.evaluation.statistics import binomial_test, bootstrap_interval, mcnemar, wilson_interval


def test_wilson_of_the_papers_headline() -> None:
    """139 of 150 clips: 87.3 to 95.9 %."""
    assert wilson_interval(139, 150) == pytest.approx((0.873, 0.959), abs=5e-4)


@pytest.mark.parametrize(("hits", "trials"), [(6, 10), (1, 7), (77, 150)])
def test_wilson_ends_are_where_the_score_test_is_at_its_limit(hits: int, trials: int) -> None:
    for end in wilson_interval(hits, trials):
        score = (hits / trials - end) / math.sqrt(end * (1 - end) / trials)
        assert abs(score) == pytest.approx(1.959964, abs=1e-5)


def test_wilson_at_the_edges() -> None:
    assert wilson_interval(0, 10).low == 0 and wilson_interval(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(10, 10).high == 1 and wilson_interval(10, 10).low == pytest.approx(0.7225, abs=1e-4)
    low, high = wilson_interval(6, 10)
    wide = wilson_interval(6, 10, level=0.99)
    assert wide.low < low < high < wide.high


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(hits: int, trials: int) -> None:
    with pytest.raises(InputError):
        wilson_interval(hits, trials)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    x = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(lambda v: float(v.mean()), x, resamples=4000)
    half = 1.96 * x.std() / 20
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.02)


def test_bootstrap_draws_the_columns_together() -> None:
    x = np.arange(50.0)
    assert bootstrap_interval(lambda a, b: float(np.abs(a - b).max()), x, x.copy()) == (0, 0)


def test_bootstrap_is_seeded() -> None:
    x = np.random.default_rng(0).random(30)
    first, again, other = (bootstrap_interval(lambda v: float(v.mean()), x, seed=s) for s in (3, 3, 4))
    assert first == again != other


def test_bootstrap_refuses_uneven_columns_and_none_at_all() -> None:
    for columns in ([np.zeros(3), np.zeros(4)], [np.zeros(0)]):
        with pytest.raises(InputError):
            bootstrap_interval(lambda *c: 0.0, *columns)


@pytest.mark.parametrize(
    ("heads", "tails", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 6, 2 / 64),
        (1, 7, 2 * (1 + 8) / 256),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (0, 1, 1.0),
    ],
)
def test_binomial_test_by_hand(heads: int, tails: int, p: float) -> None:
    assert binomial_test(heads, tails) == pytest.approx(p, abs=1e-15)


def test_binomial_test_of_many_throws_is_near_the_normal_one() -> None:
    z = (5100 - 5000 - 0.5) / math.sqrt(10_000 / 4)
    assert binomial_test(5100, 4900) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_mcnemar_looks_only_at_what_the_models_differ_in() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    second = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (6, 1)
    assert test.p == pytest.approx(2 * (1 + 7) / 128)
    assert mcnemar(second, first).p == test.p
    with pytest.raises(InputError):
        mcnemar(first, second[:5])
