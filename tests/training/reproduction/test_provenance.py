"""Where results come from: a recipe's settings once, and in each note only what differs from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from support import toy_results
from training.reproduction.provenance import notes, settings

PAPER = replace(toy_results.protocol(), changed={"augment.versions": [0, 11], "refit": [False, True]})
OLDER = replace(
    toy_results.protocol("emobox"), changed={"augment.versions": [0, 5], "spectrogram_stage.epochs": [500, 24]}
)


def test_a_note_tells_what_its_settings_differ_in_from_the_listed() -> None:
    (text,) = notes([PAPER, OLDER], [OLDER, PAPER])
    same, other = text.splitlines()
    assert same.endswith("[Settings of the recipes](#settings-of-the-recipes).") and "`ser-train toy`, 12 s" in same
    assert other.endswith("but for `augment.versions` 5; `refit` False; `spectrogram_stage.epochs` 24.")
    assert notes([], [PAPER]) == []


def test_settings_are_those_of_the_papers_split() -> None:
    text = settings([OLDER, PAPER])
    assert text.count("**toy, recipe paper**") == 1
    assert "| `augment.versions` | 0 | 11 |" in text and "| `refit` | False | True |" in text
    assert "spectrogram_stage" not in text
    assert "| `augment.versions` | 0 | 5 |" in settings([OLDER])  # nothing else stands for the recipe


def test_a_recipe_that_changes_nothing_is_the_papers() -> None:
    assert "As the paper." in settings([replace(PAPER, changed={})])
