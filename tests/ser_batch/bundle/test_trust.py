"""What a bundle states of corpora that it was not trained on, and what is refused of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.trust import NARROW, Confident, Trust, Unseen, parse_trust, read_trust, trust_of
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, InputError
from support.toy import make_toy_bundle

UNSEEN = {
    "ua": 0.523,
    "ua_interval": [0.47, 0.57],
    "labels": 8,
    "clips": 4321,
    "corpora": ["EmoDB", "SAVEE"],
    "how": "mean over corpora",
}


def stating(path: Path, trust: Any) -> Bundle:
    def edit(arguments: dict[str, Any]) -> None:
        arguments["metrics"] = {"trust": trust}

    return make_toy_bundle(path, clip=ClipRule(8_000, 8_000), edit=edit)


def test_a_bundle_that_says_nothing_was_not_measured(toy_bundle: Bundle) -> None:
    found = trust_of(toy_bundle)
    assert found == Trust() and str(found) == "not measured on unseen corpora" and found.narrow == NARROW


def test_what_it_says_is_one_clause(tmp_path: Path) -> None:
    found = trust_of(stating(tmp_path / "bundle", {"unseen": UNSEEN, "bandwidth_hz": 3400}))
    assert found.narrow == 3400
    assert str(found) == (
        "UA 52.3 % (47.0 to 57.0 %) on corpora that it was not trained on: EmoDB, SAVEE "
        "(mean over corpora; 4,321 clips, up to 8 labels, chance 12.5 % or more)"
    )
    short = {name: UNSEEN[name] for name in ("ua", "labels", "clips", "corpora")}
    assert str(parse_trust({"unseen": short}, "x")).startswith("UA 52.3 % on corpora")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"unseen": {**UNSEEN, "ua": 52.3}}, r"manifest.json: metrics: trust: unseen: .*out of range; got ua \(52.3"),
        ({"unseen": {**UNSEEN, "corpora": []}}, "0 corpora"),
        ({"unseen": {"ua": 0.5}}, "lacks clips, corpora, labels"),
        (
            {"bandwith_hz": 3400},
            "unknown keys: bandwith_hz; expected some of bandwidth_hz, confident, unseen. docs/bundle-format",
        ),
        ({"confident": {"score": 0.0, "precision": 0.7, "share": 0.4}}, "a score, a precision and a share are above 0"),
        ({"bandwidth_hz": 0}, "a bandwidth is above 0 Hz; got 0"),
        ({"bandwidth_hz": "wide"}, "bandwidth_hz is of another type"),
        ([], "trust is not an object"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        trust_of(stating(tmp_path / "bundle", value))


def test_the_file_for_an_export_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with pytest.raises(InputError, match="cannot be read"):
        read_trust(path)
    path.write_text(json.dumps({"unseen": UNSEEN}))
    assert read_trust(path) == {"unseen": UNSEEN}
    path.write_text("[]")
    with pytest.raises(BundleError, match=r"trust.json is not an object"):
        read_trust(path)
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_trust(path)


def test_of_many_corpora_a_summary_has_the_number_alone() -> None:
    few = Unseen(0.5, 4, 100, ("EmoDB", "SAVEE"), how="mean over corpora")
    many = Trust(replace(few, corpora=("EmoDB", "SAVEE", "CASIA", "TESS")), Confident(0.7, 0.7, 0.1))
    head, clips = "UA 50.0 % on corpora that it was not trained on", "100 clips, up to 4 labels, chance 25.0 % or more)"
    assert Trust(few).brief == f"{head}: EmoDB, SAVEE ({clips}"
    assert many.brief.startswith(f"{head} (4 of them; {clips}; 70 % right")
    assert f"TESS (mean over corpora; {clips}" in str(many)
