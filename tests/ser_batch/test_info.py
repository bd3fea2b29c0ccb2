"""`ser-batch info`: a page that a person can read, and JSON that has everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.cli import main
from ser_batch.clips import ClipRule
from ser_batch.info import WIDTH, describe, page
from support.bundles import sealed, sidecar_of
from support.toy import LABELS, make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)


def edited(path: Path, **changes: Any) -> Bundle:
    return make_toy_bundle(path, clip=SMALL, edit=lambda arguments: arguments.update(changes))


def test_the_page_says_what_the_bundle_is(toy_bundle: Bundle) -> None:
    shown = page(toy_bundle)
    for line in (
        f"bundle            {toy_bundle.id}",
        f"path              {toy_bundle.root}",
        f"labels            {', '.join(LABELS)}",
        "clip              3 s at 48,000 Hz, from 0.5 s on; any recording is resampled, long ones whole",
        "trust             not measured on unseen corpora",
        "licence           Apache-2.0",
        "onnxruntime       can run here",
    ):
        assert line.replace(" ", "") in shown.replace(" ", ""), line
    assert f"ser-batch run AUDIO --bundle {toy_bundle.root}"[:40] in shown


def test_the_embedded_bundle_fits_a_screen_and_holds_no_raw_figures() -> None:
    shown, bundle = page(load_bundle()), load_bundle()
    lines = shown.splitlines()
    # Paths and ids are not broken.
    assert len(lines) < 45 and all(len(line) <= WIDTH or "/" in line for line in lines)
    assert "the default one, embedded" in shown and "ser-batch run AUDIO --out preds.parquet" in shown
    test = bundle.manifest.metrics["test"]["fused"]
    assert f"{100 * test['accuracy']:.1f} %" in shown and str(test["accuracy"]) not in shown
    assert "[[" not in shown and bundle.manifest.provenance["recipe"] in shown


def test_json_has_everything(toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(toy_bundle.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(describe(toy_bundle)))
    assert found["id"] == toy_bundle.id and found["sha256"] == toy_bundle.sha256
    assert found["metrics"] == toy_bundle.manifest.metrics and found["provenance"]["seed"] == 0
    assert found["clip"]["samples"] == 144_000 and found["labels"] == list(LABELS)
    assert found["backends"]["onnxruntime"] is None
    assert set(found["bytes"]) == set(toy_bundle.manifest.files)


def test_the_embedding_is_named(toy_bundle: Bundle, embedding_bundle: Bundle) -> None:
    assert "embedding         8, of wav2vec2".replace(" ", "") in page(embedding_bundle).replace(" ", "")
    assert [each.get("embedding") for each in describe(embedding_bundle)["branches"]] == [8, None]
    assert "embedding         none".replace(" ", "") in page(toy_bundle).replace(" ", "")


def test_figures_of_another_form_are_left_to_the_json(tmp_path: Path) -> None:
    for number, metrics in enumerate(({}, {"test": 0.5}, {"test": {"fused": 0.5}}, {"test": {"fused": {"ua": 0.25}}})):
        bundle = edited(tmp_path / f"{number}", metrics=metrics)
        assert ("25.0 %" in page(bundle)) == (number == 3)
        assert describe(bundle)["metrics"] == metrics


def test_a_bundle_that_was_measured_on_unseen_corpora_says_so(tmp_path: Path) -> None:
    unseen = {"ua": 0.5, "labels": 4, "clips": 100, "corpora": ["EmoDB"]}
    bundle = edited(tmp_path / "bundle", metrics={"trust": {"unseen": unseen}})
    assert "UA 50.0 % on corpora that it was not trained on: EmoDB" in " ".join(page(bundle).split())


def test_control_characters_are_masked(tmp_path: Path) -> None:
    bundle = edited(tmp_path / "bundle", licence="red \x1b[31m", provenance={"note": "a\x07b"})
    assert "red \\x1b[31m" in page(bundle) and "a\\x07b" in page(bundle) and "\x1b" not in page(bundle)


def test_a_backend_that_is_missing_says_how_to_get_it(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_batch.engines.onnxruntime.unavailable", lambda: "pip install it")
    assert "not here: pip install it" in page(toy_bundle)
    assert describe(toy_bundle)["backends"]["onnxruntime"] == "pip install it"


def test_engines_say_what_they_were_built_for(tmp_path: Path) -> None:
    bundle = sealed(edited(tmp_path / "bundle"), sidecar_of(edited(tmp_path / "same")))
    built_for = "trt-rtx 1.7.1.116 in fp32 for compute capability 8.9"
    assert describe(bundle)["engines"] == [built_for] and built_for in page(bundle)
