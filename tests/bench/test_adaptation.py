"""`bench adaptation` on a small corpus whose model says one label too often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench import results
from bench.adaptation import FEW, METHODS, MOSTLY_NEUTRAL, WHOLE
from bench.cli import cli
from ser_batch.arrow import strings
from support.predictions import softmax, write_predictions

LABELS = ("neutral", "calm", "happy", "angry")


def corpus(path: Path, *, speakers: bool = True) -> None:
    """240 recordings that are neutral, happy or angry, never calm; the model says happy too often."""
    rng = np.random.default_rng(0)
    truth = np.tile([0, 2, 3], 80)
    logits = 1.5 * (rng.normal(size=(240, 4)) + 1.5 * np.eye(4)[truth]) + [0, 0, 2.5, 0]
    voices = {"speaker_id": strings([f"s{row // 3 % 4}" for row in range(240)])} if speakers else {}
    handed = {"given_label": strings([LABELS[i] for i in truth]), **voices}
    write_predictions(path, LABELS, [f"{row}.wav" for row in range(240)], softmax(logits), handed=handed)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> results.Document:
    folder = tmp_path_factory.mktemp("adaptation")
    corpus(folder / "preds.parquet")
    corpus(folder / "nameless.parquet", speakers=False)
    given = [each for name in ("preds", "nameless") for each in ("--corpus", name, f"{folder / name}.parquet", "-")]
    ran = CliRunner().invoke(cli, ["adaptation", *given, "--draws", "2", "--json", str(folder / "result.json")])
    assert ran.exit_code == 0, ran.output
    return results.read(folder / "result.json")


def row(result: results.Document, shares: str, method: str) -> dict:
    return next(
        each
        for each in result["corpora"]
        if (each["corpus"], each["shares"], each["method"]) == ("preds", shares, method)
    )


def test_shares_that_are_true_help_and_those_that_are_not_do_less(result):
    whole = row(result, WHOLE, "equal shares")["draws"]
    assert whole["ua"][0] > whole["ua_before"][0] + 0.1 and len(whole["ua"]) == 1
    wrong, right = (row(result, MOSTLY_NEUTRAL, name)["draws"] for name in ("equal shares", "true shares"))
    assert np.mean(right["accuracy"]) > np.mean(wrong["accuracy"]) + 0.1
    assert right["ua_before"] == wrong["ua_before"] and len(right["ua"]) == 2


def test_figures_with_labels_are_of_the_other_rows(result):
    found = row(result, WHOLE, f"{FEW} rows")
    assert found["rows"] == 240 and found["bundle"] == "toy-1"
    # A share of 180 rows.
    assert all(abs(180 * value - round(180 * value)) < 0.01 for value in found["draws"]["accuracy"])


def test_every_method_is_there_and_speakers_only_where_they_are_known(result):
    names = {
        corpus: {r["method"] for r in result["corpora"] if r["corpus"] == corpus} for corpus in ("preds", "nameless")
    }
    assert names["preds"] == {method.name for method in METHODS}
    assert names["nameless"] == {method.name for method in METHODS if not method.by_speaker}


def test_the_page_has_the_tables(result, tmp_path):
    results.write(result, tmp_path / "a.json")
    page = tmp_path / "archive.md"
    page.write_text("<!-- generated: adaptation; x -->\n<!-- end of adaptation -->\n")
    arguments = ["report", str(tmp_path / "a.json"), "--docs", str(page), "--out", str(tmp_path / "page.html")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    text = page.read_text()
    assert "| preds | 240 | " in text and "**UA (accuracy), 75 % neutral**" in text and "draws with lower UA" in text
