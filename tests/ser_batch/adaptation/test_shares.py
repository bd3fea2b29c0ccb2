"""What `--shares` may say."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.adaptation.shares import bias_for_shares, biased, parse_shares
from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import LabelMap

LABELS = ("neutral", "calm", "happy", "angry")
RNG = np.random.default_rng(0)


def parsed(text: str, truth: list[int] | None = None) -> list[float]:
    meaning = LabelMap(LABELS, {"exc": "happy"})
    return parse_shares(text, meaning, None if truth is None else np.array(truth)).round(4).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("equal", [0.25, 0.25, 0.25, 0.25]),
        ("neutral=0.7", [0.7, 0.1, 0.1, 0.1]),
        ("neutral=0.7, calm=0", [0.7, 0.0, 0.15, 0.15]),
        ("calm=0", [0.3333, 0.0, 0.3333, 0.3333]),
        ("equal,calm=0", [0.3333, 0.0, 0.3333, 0.3333]),
        ("neutral=0.5,calm=0,anger=0.2,joy=0.2,exc=0.1", [0.5, 0.0, 0.3, 0.2]),
        ("neutral=0.33,happy=0.33,angry=0.33,calm=0", [0.3333, 0.0, 0.3333, 0.3333]),
    ],
)
def test_stated(text, expected):
    assert parsed(text) == expected


def test_counted_among_labelled_rows_with_one_more_of_each():
    assert parsed("labels", [0, 0, 0, 2]) == [0.5, 0.125, 0.25, 0.125]
    assert parsed("labels,calm=0", [0, 0, 0, 2]) == [0.5714, 0.0, 0.2857, 0.1429]


@pytest.mark.parametrize("column", ["share", "count"])
def test_a_table(tmp_path, column):
    values = (0.5, 0.2, 0.3) if column == "share" else (50, 20, 30)
    lines = [f"label,{column}", *(f"{a},{b}" for a, b in zip(("neutral", "Anger", "joy"), values, strict=True))]
    (tmp_path / "shares.csv").write_text("\n".join(lines))
    assert parsed(str(tmp_path / "shares.csv")) == [0.5, 0.0, 0.3, 0.2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neutral", "neither shares nor a file: 'neutral'"),
        ("shares.csv", "neither shares nor a file"),
        ("neutral=most", "neither shares nor a file"),
        ("bored=0.5", "bored=0.5"),
        ("neutral=1.5", "neutral=1.5"),
        ("neutral=-0.1", "neutral=-0.1"),
        ("neutral=nan", "neutral=nan"),
        ("neutral=0.7,angry=0.7", "do not sum to 1; got 1.4"),
        ("neutral=0.2,calm=0.2,happy=0.2,angry=0.2", "do not sum to 1; got 0.8"),
        ("neutral=1", "fewer than two labels"),
        ("labels", "none are given"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InputError, match=message):
        parsed(text)


def rows(count: int, sharpness: float = 2.0, labels: int = 5) -> np.ndarray:
    logits = sharpness * RNG.normal(size=(count, labels)) + np.arange(labels)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("sharpness", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("shares", [np.full(5, 0.2), np.array([0.75, 0.1, 0.05, 0.05, 0.05])])
def test_the_mean_probability_is_the_stated_shares(sharpness, shares):
    probabilities = rows(400, sharpness)
    found = biased(probabilities, bias_for_shares(probabilities, shares))
    assert np.abs(found.mean(axis=0) - shares).max() < 1e-7
    assert np.allclose(found.sum(axis=1), 1)


def test_it_is_what_iteration_finds():
    probabilities, shares = rows(300), np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    bias = np.zeros(5)
    for _ in range(2000):
        bias += np.log(shares / biased(probabilities, bias).mean(axis=0))
    assert np.allclose(bias_for_shares(probabilities, shares), bias - bias.mean(), atol=1e-6)


def test_a_label_without_a_share_is_never_said():
    probabilities = rows(200)
    shares = np.array([0.5, 0.0, 0.2, 0.0, 0.3])
    bias = bias_for_shares(probabilities, shares)
    found = biased(probabilities, bias)
    assert np.isneginf(bias[[1, 3]]).all() and not found[:, [1, 3]].any()
    assert np.abs(found.mean(axis=0) - shares).max() < 1e-7


def test_rows_without_a_doubt_are_no_trap():
    # No bias short of infinity makes a quarter of them the second label; it must end, and be finite.
    certain = np.tile(np.float32([1.0, 0.0, 0.0]), (50, 1))
    bias = bias_for_shares(certain, np.array([0.5, 0.25, 0.25]))
    assert np.isfinite(bias).all()
    assert np.abs(biased(certain, bias).mean(axis=0) - [0.5, 0.25, 0.25]).max() < 1e-6


def test_a_temperature_flattens_and_nothing_changes_nothing():
    probabilities = rows(20)
    assert np.allclose(biased(probabilities, np.zeros(5)), probabilities, atol=1e-6)
    assert (biased(probabilities, np.zeros(5), 2.0).max(axis=1) < probabilities.max(axis=1)).all()


def test_no_rows():
    with pytest.raises(InputError, match="no scored rows"):
        bias_for_shares(rows(0), np.full(5, 0.2))
