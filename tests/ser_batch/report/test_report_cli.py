"""`ser-batch report`: what the page holds, and what is refused, without a browser."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ser_batch.adaptation.adapt import Adaptation
from ser_batch.adaptation.table import adapt_table
from ser_batch.cli import main
from ser_batch.report import recordings as report_recordings
from support.report_tables import HOSTILE, LABELS, recordings, windows

pytest.importorskip("altair")


class Elements(HTMLParser):
    """Start tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def made(out: Path, *arguments: object) -> str:
    assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_figures_have_their_numbers(predictions, tmp_path):
    page = made(tmp_path / "report.html", predictions)
    for title in ("Labels", "Scores", "Levels", "Bandwidths", "Failures"):
        assert f"<h3>{title}</h3>" in page and f"{title}: numbers" in page
    assert "61: 60 ok, 1 error" in page and "1 rows are digital silence" in page
    assert page.count("<svg") == 5 and page.count("<figure>") == 5
    assert "Against the labels" not in page and "vegaEmbed" not in page.split("<script>")[-2]


def test_rows_are_those_of_the_table(predictions, tmp_path):
    found, table = data(made(tmp_path / "report.html", predictions)), pq.read_table(predictions)
    assert found["file"] == table["file"].to_pylist() and found["file"][0] == HOSTILE
    said = [None if i < 0 else LABELS[i] for i in found["label"]]
    assert said == table["label"].to_pylist() and found["score"][-1] is None
    assert found["level"][3] == report_recordings.SILENCE and found["level"][-1] is None
    assert found["reasons"][found["reason"][-1]] == table["error"].to_pylist()[-1]
    # Of recordings that are heard whole, start and end say nothing.
    assert "start" not in found and found["duration"][0] == 2.5


def test_names_are_no_markup(predictions, tmp_path):
    page = made(tmp_path / "report.html", predictions, "--label-column", "label", "--by", "speaker")
    tags = Elements(page).found
    assert [tag for tag, _ in tags].count("script") == 2 and not [tag for tag, _ in tags if tag in ("img", "i", "b")]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "s&lt;i&gt;0" in page and "alert(1)>" not in page and "\u202e" not in page.split('id="data"')[0]


def test_nothing_is_fetched(predictions, tmp_path):
    page = made(tmp_path / "report.html", windows(tmp_path / "windows.parquet"))
    tags = Elements(page).found
    fetched = [a for tag, attributes in tags for a in ("src", "data") if a in attributes and tag != "object"]
    assert not fetched and not [1 for tag, _ in tags if tag in ("link", "iframe", "object")]
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "http" not in policy and "unsafe-eval" not in policy


def test_labels(predictions, tmp_path):
    labels = tmp_path / "truth.csv"
    table = pq.read_table(predictions)
    rows = [
        f"{name},{label}" for name, label in zip(*(table[c].to_pylist() for c in ("file", "given_label")), strict=True)
    ]
    labels.write_text("path,label\n" + "\n".join(rows[1:-1]))
    page = made(tmp_path / "report.html", predictions, "--labels", labels)
    assert "<h3>Confusion</h3>" in page and "<h3>Reliability</h3>" in page and "59 evaluated, of 61 rows" in page
    truth = [None if i < 0 else LABELS[i] for i in data(page)["truth"]]
    assert truth == [None, *table["given_label"].to_pylist()[1:-1], None] and "no clip is labelled" not in page
    labels.write_text("path,label\n" + "\n".join(row for row in rows[1:-1] if not row.endswith("angry")))
    page = made(tmp_path / "without.html", predictions, "--labels", labels)
    assert "no clip is labelled angry" in page and "--among neutral,happy" in page


def test_merged_labels_are_merged_in_rows_and_figures(predictions, tmp_path):
    page = made(tmp_path / "report.html", predictions, "--label-column", "label", "--map", "happy=neutral")
    found = data(page)
    assert found["labels"] == ["neutral", "angry"] and set(found["truth"]) == {-1, 0, 1} == set(found["label"])
    wrong = sum(a != b for a, b in zip(found["label"], found["truth"], strict=True))
    assert f"{60 - wrong} of 60 rows are right" in page


def test_groups(predictions, tmp_path):
    page = made(tmp_path / "report.html", predictions, "--label-column", "label", "--by", "speaker")
    assert "<h3>By speaker</h3>" in page and page.count("s&lt;i&gt;3") >= 2


def test_an_adapted_table_is_shown_beside_the_models_own(predictions, tmp_path):
    source = recordings(tmp_path / "shifted.parquet", 90, shift=2.0)
    adapt_table(source, tmp_path / "adapted.parquet", Adaptation(shares="equal"))
    page = made(tmp_path / "report.html", tmp_path / "adapted.parquet", "--label-column", "label")
    assert ">unadapted<" in page and "softmax(log p / temperature + bias)" in page


def test_two_tables(predictions, tmp_path):
    other = recordings(tmp_path / "other.parquet", 30, shift=3.0)
    page = made(tmp_path / "report.html", predictions, other, "--label-column", "label")
    assert "30 rows are only in preds.parquet, 0 only in other.parquet" in page
    text = html.unescape(page)
    first, second = pq.read_table(predictions).slice(0, 30), pq.read_table(other).slice(0, 30)
    right = [
        [a == b for a, b in zip(t["label"].to_pylist(), t["given_label"].to_pylist(), strict=True)]
        for t in (first, second)
    ]
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    assert f"Only preds.parquet is right in {only[0]} rows, only other.parquet in {only[1]}" in text
    agree = sum(a == b for a, b in zip(first["label"].to_pylist(), second["label"].to_pylist(), strict=True)) / 30
    assert f"Both say the same of {agree:.1%} of 30 rows" in text
    found = data(page)
    assert found["second"] == "other.parquet" and found["other"][-1] == 0 == found["other"][35]
    assert [found["other_labels"][i] for i in found["other"][:30]] == second["label"].to_pylist()


def test_windows_have_timelines(tmp_path):
    page = made(tmp_path / "report.html", windows(tmp_path / "windows.parquet"))
    found = data(page)
    assert 'id="timeline-file"' in page and len(found["p"]) >= 3 * 120 and found["channel"][:2] == [1, 2]
    assert found["start"][:6] == [0, 0, 3, 3, 6, 6] and found["label"][2] == -1


def test_windows_with_labels_are_sent_to_the_aggregate(tmp_path, capsys):
    source = windows(tmp_path / "windows.parquet")
    (tmp_path / "truth.csv").write_text("path,label\ncall-1.wav,happy\n")
    arguments = ["report", str(source), "--labels", str(tmp_path / "truth.csv"), "--out", str(tmp_path / "r.html")]
    assert main(arguments) == 2
    assert "--aggregate" in capsys.readouterr().err and not (tmp_path / "r.html").exists()


def test_audio_is_linked_relative_to_the_page_or_inside_it(predictions, audio, tmp_path):
    (tmp_path / "pages").mkdir()
    linked = data(made(tmp_path / "pages" / "linked.html", predictions, "--audio", audio))["audio"]
    assert linked["root"] == "../sounds%20%26%20more/" and linked["embedded"] == {}
    arguments = (predictions, "--audio", audio, "--embed-audio", 4)
    embedded = data(made(tmp_path / "pages" / "embedded.html", *arguments))["audio"]["embedded"]
    assert len(embedded) == 4 and all(url.startswith("data:audio/wav;base64,UklGR") for url in embedded.values())


def test_embedded_audio_is_bounded(predictions, audio, tmp_path, monkeypatch):
    monkeypatch.setattr(report_recordings, "EMBEDDED_BYTES", 40_000)  # two of them
    page = made(tmp_path / "report.html", predictions, "--audio", audio, "--embed-audio", 9)
    assert len(data(page)["audio"]["embedded"]) == 2


def test_many_rows_are_in_the_figures_and_the_first_in_the_table(predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.report.page.ROWS", 20)
    monkeypatch.setattr(report_recordings, "ROWS", 20)
    page = made(tmp_path / "report.html", predictions)
    assert len(data(page)["file"]) == 20 and "the first 20 rows, 41 more" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "speaker"], "give --labels or --label-column"),
        (["--embed-audio", "3"], "give --audio DIR"),
        (["--audio", "."], "does not hold the recordings"),
        (["absent.parquet"], "absent.parquet"),
    ],
)
def test_refused(predictions, tmp_path, capsys, arguments, message):
    assert main(["report", str(predictions), *arguments, "--out", str(tmp_path / "report.html")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "report.html").exists()


def test_nothing_is_replaced_by_mistake(predictions, tmp_path, capsys):
    before = predictions.read_bytes()
    assert main(["report", str(predictions), "--out", str(predictions), "--overwrite"]) == 2
    assert "which is one HTML page" in capsys.readouterr().err and predictions.read_bytes() == before
    assert main(["report", str(predictions), "--out", str(tmp_path / "r.txt")]) == 2
    assert "expected a name that ends in .html" in capsys.readouterr().err and not (tmp_path / "r.txt").exists()
    made(tmp_path / "report.html", predictions)
    assert main(["report", str(predictions), "--out", str(tmp_path / "report.html")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_without_the_library_it_says_what_to_install(predictions, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ser_batch.report.")]:
        if name != "ser_batch.report.cli":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    assert main(["report", str(predictions), "--out", str(tmp_path / "report.html")]) == 2
    assert "pip install 'ser-batch[report]'" in capsys.readouterr().err
