"""What `--shares` may say."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.adaptation.shares import parse_shares
from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import LabelMap

LABELS = ("neutral", "calm", "happy", "angry")


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
