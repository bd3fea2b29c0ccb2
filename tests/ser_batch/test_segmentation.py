from __future__ import annotations

import json

import pytest

from ser_batch.clips import SILENCE, ClipRule, Segmentation
from ser_batch.errors import InputError


@pytest.mark.parametrize(
    "options",
    [
        {"window": 3.1},
        {"window": 0},
        {"window": float("nan")},
        {"hop": 1},
        {"window": 3, "hop": 0},
        {"window": 1, "min_duration": 2},
        {"min_duration": -1},
        {"silence": 3},
        {"silence": float("nan")},
    ],
)
def test_what_cannot_be_heard_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Segmentation(ClipRule(), **options)


def test_windows_have_a_gate_of_their_own() -> None:
    assert Segmentation(ClipRule(), window=3).threshold(window=True) == SILENCE
    assert Segmentation(ClipRule()).threshold(window=False) == -float("inf")
    assert Segmentation(ClipRule()).status(3, -120, window=False) == "ok"
    assert Segmentation(ClipRule(), whole=True).status(3, -120, window=True) == "silent"
    assert {Segmentation(ClipRule(), window=3, silence=-40).threshold(window=each) for each in (True, False)} == {-40}


def test_long_is_what_has_more_than_two_clips_and_no_window() -> None:
    assert [Segmentation(ClipRule(), whole=True).is_long(seconds) for seconds in (3, 6, 6.001)] == [False, False, True]
    assert not Segmentation(ClipRule()).is_long(3600)
    with pytest.raises(InputError, match="row of its own"):
        Segmentation(ClipRule(), window=3, whole=True)


def test_the_provenance_tells_every_rule_apart() -> None:
    rules = [
        {},
        {"window": 3},
        {"window": 3, "hop": 1},
        {"min_duration": 1},
        {"silence": -50},
        {"window": 2},
        {"whole": True},
        {"channels": "split"},
        {"channels": "2"},
    ]
    written = {Segmentation(ClipRule(), **rule).to_json() for rule in rules}
    assert len(written) == len(rules)
    assert Segmentation(ClipRule(), window=3, hop=3).to_json() == Segmentation(ClipRule(), window=3).to_json()
    json.loads(Segmentation(ClipRule()).to_json(), parse_constant=lambda name: pytest.fail(name))
