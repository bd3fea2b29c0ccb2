"""CSV, JSON lines and Excel: the same rows as the Parquet beside them, resumed, interrupted, refused and evaluated."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import OutputError
from ser_batch.evaluation.predictions import read_predictions
from ser_batch.output import formats
from ser_batch.output.destination import Output
from support.commands import run
from support.recordings import write

NAMES = ("=1+1.wav", 'a, "b"\nc.wav', "bad.wav", "silent.wav", "ä.wav")
"""In order."""
ENDINGS = (".csv", ".jsonl", ".xlsx")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    import numpy as np
    import soundfile

    folder = tmp_path / "audio"
    folder.mkdir()
    for name in (*NAMES[:2], NAMES[4]):
        write(folder / name, 1.0)
    (folder / "bad.wav").write_bytes(b"no audio")
    soundfile.write(folder / "silent.wav", np.zeros(8_000), 8_000)
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows as the format itself has them; in CSV everything is text."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [*csv.DictReader(file)]
    openpyxl = pytest.importorskip("openpyxl")
    header, *values = openpyxl.load_workbook(path)["predictions"].iter_rows(values_only=True)
    return [dict(zip(header, each, strict=True)) for each in values]


def same(value: Any, found: Any, kind: str) -> bool:
    if kind == ".csv":
        found = None if found == "" else type(value)(found) if value is not None else found
    if isinstance(value, float) and not math.isfinite(value):
        return found == (value if kind == ".csv" else None)
    if isinstance(value, float):
        # Of float32, the digits that tell it from its neighbours.
        return math.isclose(value, found, rel_tol=6e-8)
    return found == (str(value) if kind == ".xlsx" and isinstance(value, int) and value > 2**53 else value)


@pytest.mark.parametrize("kind", ENDINGS)
def test_it_holds_the_rows_of_the_parquet_beside_it(audio: Path, tmp_path: Path, toy_bundle: Bundle, kind: str) -> None:
    out = tmp_path / f"preds{kind}"
    assert run(audio, "--out", out, "--bundle", toy_bundle.root, "--quiet") == 3
    table = pq.read_table(f"{out}.parquet")
    assert sorted(tmp_path.iterdir()) == sorted([audio, out, Path(f"{out}.parquet")])
    found = rows(out)
    assert [each["file"] for each in found] == list(NAMES) and [*found[0]] == table.column_names
    for row, read in zip(table.to_pylist(), found, strict=True):
        assert [name for name in row if not same(row[name], read[name], kind)] == []
    assert math.isinf(table["level"][3].as_py()) and table["status"].to_pylist()[2:4] == ["error", "silent"]


@pytest.mark.parametrize("kind", ENDINGS)
def test_it_is_gone_on_with_and_evaluated(audio: Path, tmp_path: Path, toy_bundle: Bundle, kind: str) -> None:
    out = tmp_path / f"preds{kind}"
    command = (audio, "--out", out, "--bundle", toy_bundle.root, "--quiet")
    assert run(*command) == 3
    assert run(*command) == 2, "it exists"
    before = out.read_bytes()
    write(audio / "new.wav", 1.5)
    out.unlink()
    assert run(*command) == 2, "its Parquet exists"
    assert run(*command, "--resume") == 3
    assert [each["file"] for each in rows(out)] == sorted([*NAMES, "new.wav"]) and out.read_bytes() != before
    served, whole = read_predictions(out), read_predictions(f"{out}.parquet")
    assert (served.files, served.statuses, served.labels) == (whole.files, whole.statuses, whole.labels)
    assert served.provenance == whole.provenance and served.provenance["bundle_id"] == toy_bundle.id
    assert run(*command, "--overwrite") == 3


def test_what_was_cut_off_between_the_two_files_is_finished(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "preds.csv", tmp_path / "whole.csv"
    command = (audio, "--bundle", toy_bundle.root, "--quiet", "--out")
    assert run(*command, whole) == 3

    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("ser_batch.output.destination.render", full)
        assert run(*command, out) == 2
    assert not out.exists() and Path(f"{out}.parquet").is_file()
    assert run(*command, out) == 2, "it is unfinished"
    assert run(*command, out, "--resume") == 3
    assert out.read_bytes() == whole.read_bytes()
    assert not Output.parse(out).folder.is_there()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("preds.tsv", "no output format '.tsv'; got preds.tsv; expected a name that ends in .parquet, .csv, .jsonl"),
        ("preds.csv.gz", "no output format '.gz'"),
        ("preds", "does not say its format; got preds; expected"),
    ],
)
def test_other_endings_are_refused_by_name(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert run(audio, "--out", tmp_path / name, "--bundle", toy_bundle.root) == 2
    assert message in capsys.readouterr().err and [*tmp_path.iterdir()] == [audio]
    assert run(audio, "--out", tmp_path / "o.parquet", "--aggregate", tmp_path / name, "--bundle", toy_bundle.root) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_a_table_of_somebody_else_stays(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    out = tmp_path / "mine.csv"
    out.write_text("path,label\n")
    assert run(audio, "--out", out, "--bundle", toy_bundle.root, flag) == 2
    assert "mine.csv.parquet does not, so it is neither replaced nor resumed" in capsys.readouterr().err
    assert out.read_text() == "path,label\n"


def test_a_sheet_that_is_too_small_is_refused_before_and_after(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "EXCEL_ROWS", 4)
    assert run(audio, "--out", tmp_path / "a.xlsx", "--bundle", toy_bundle.root) == 2
    assert "cannot hold so many rows; got 5; expected 4 at most" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [audio]
    windows = ("--window", 0.5, "--bundle", toy_bundle.root)
    assert run(audio / "ä.wav", audio / "=1+1.wav", audio / "silent.wav", "--out", tmp_path / "a.xlsx", *windows) == 2
    assert "got 6; expected 4" in capsys.readouterr().err
    assert pq.read_metadata(tmp_path / "a.xlsx.parquet").num_rows == 6 and not (tmp_path / "a.xlsx").exists()


def test_without_openpyxl_it_says_what_to_install(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert run(audio, "--out", tmp_path / "a.xlsx", "--bundle", toy_bundle.root) == 2
    assert "a.xlsx needs openpyxl. Install it: pip install 'ser-batch[xlsx]'" in capsys.readouterr().err


def test_rows_per_recording_have_the_formats_too(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    command = (audio, "--window", 0.5, "--bundle", toy_bundle.root, "--quiet")
    assert run(*command, "--out", tmp_path / "w.jsonl", "--aggregate", tmp_path / "a.csv") == 3
    first = rows(tmp_path / "a.csv")[0]
    assert (first["file"], first["segments"]) == ("=1+1.wav", "2")
    assert len(rows(tmp_path / "w.jsonl")) == 9


@pytest.mark.parametrize("kind", ENDINGS)
def test_columns_that_a_table_brings_go_through(audio: Path, tmp_path: Path, toy_bundle: Bundle, kind: str) -> None:
    import datetime

    day = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    given = {"path": ["ä.wav"], "tags": [["x", "y"]], "of": [{"a": 1.5, "b": None}], "when": [day], "big": [2**60]}
    pq.write_table(pa.table(given), audio / "list.parquet")
    out = tmp_path / f"o{kind}"
    assert run(audio / "list.parquet", "--out", out, "--bundle", toy_bundle.root, "--quiet") == 0
    (row,) = rows(out)
    assert json.loads(row["tags"]) == ["x", "y"] and json.loads(row["of"]) == {"a": 1.5, "b": None}
    assert int(row["big"]) == 2**60 and str(row["when"]).startswith("2026-01-02")
    assert run(audio / "list.parquet", "--out", out, "--bundle", toy_bundle.root, "--quiet", "--resume") == 0


def test_a_number_in_a_nested_column_that_json_has_none_for_is_null() -> None:
    assert formats._json({"a": [float("nan"), 1.0], "b": b"x"}) == '{"a": [null, 1.0], "b": "b\'x\'"}'


def test_an_output_of_another_ending_that_is_there_is_gone_on_with(
    audio: Path, tmp_path: Path, toy_bundle: Bundle
) -> None:
    command = (audio, "--bundle", toy_bundle.root, "--quiet", "--out")
    assert run(*command, tmp_path / "o.parquet") == 3
    (tmp_path / "o.parquet").rename(tmp_path / "old")
    assert run(*command, tmp_path / "old", "--resume") == 3
