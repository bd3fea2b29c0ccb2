"""`ser-batch run` over tables of recordings, through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.bundle.bundle import Bundle
from support.commands import REPOSITORY, RUNTIME, run
from support.recordings import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "call.wav", 9.0, rate=16_000)
    write(tmp_path / "a.wav", 3.0)
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def listed(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_each_row_of_a_table_is_a_row_of_the_predictions(
    folder: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    table = listed(
        folder,
        "path,start,end\na.wav,0,1500\na.wav,1,\na.wav,1,1\n,0,1\na.wav,0,1,2\na.wav,4,\n"
        "call.wav,0 days 00:00:02,NaT\n",
    )
    assert run(table, "--out", folder / "o.parquet", "--bundle", toy_bundle.root) == 3
    found = rows(folder / "o.parquet")
    assert [row["status"] for row in found] == ["error", "ok", "error", "error", "error", "error", "ok"]
    words = ["a recording of 3.000 s", "", "of length 0", "names no file", "has 4 cells", "a recording of 3.000 s", ""]
    assert all(word in (row["error"] or "") for word, row in zip(words, found, strict=True))
    assert (found[1]["start"], found[1]["end"], found[1]["duration"]) == (1.0, 3.0, 3.0)
    assert (found[6]["start"], found[6]["end"], found[6]["segments"]) == (2.0, 9.0, 3)  # all of it, from 2 s on
    assert [(row["given_start"], row["given_end"]) for row in found][:2] == [(0.0, 1500.0), (1.0, None)]
    assert f"failed: {folder / 'a.wav'}: ends before" in capsys.readouterr().err


@pytest.mark.parametrize("window", [None, 1.0])
def test_a_stretch_past_the_end_or_open_is_alike_with_windows(
    folder: Path, toy_bundle: Bundle, window: float | None
) -> None:
    table = listed(folder, "path,start,end\na.wav,1,1500\na.wav,1,\na.wav,3.5,\na.wav,2.5,3.015\n")
    more = [] if window is None else ["--window", window]
    assert run(table, "--out", folder / "o.parquet", "--bundle", toy_bundle.root, *more) == 3
    found = rows(folder / "o.parquet")
    of = {key: [row for row in found if row["id"] == f"a.wav@{key}"] for key in ("1-1500", "1-", "3.5-", "2.5-3.015")}
    assert [row["status"] for row in of["1-1500"]] == ["error"] == [row["status"] for row in of["3.5-"]]
    assert "3.000 s" in of["1-1500"][0]["error"] and "3.000 s" in of["3.5-"][0]["error"]
    assert (of["1-"][0]["start"], of["1-"][-1]["end"]) == (1.0, 3.0)
    assert of["2.5-3.015"][0]["status"] == "ok"  # a few milliseconds are rounding


@pytest.mark.parametrize("out", ["o.parquet", "o/"])
def test_a_row_is_made_again_when_what_the_table_says_has_changed(
    folder: Path, toy_bundle: Bundle, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    as_it_was = {"start": "0", "end": "2", "label": "sad", "when": "2024-01-02 03:04:05"}
    changes = {
        "u1": {"start": "1"}, "u2": {"end": "1.5"}, "u3": {"label": "happy"}, "u4": {"when": "2024-01-02 03:04:06"},
        "u5": {}, "u6": {},
    }  # fmt: skip
    for name, new, more in (("before.csv", {}, ()), ("after.csv", changes, ("--resume",))):
        told = {key: as_it_was | new.get(key, {}) for key in changes}
        text = "".join(f"call.wav,{key},{','.join(values.values())}\n" for key, values in told.items())
        table = listed(folder, f"path,id,start,end,label,when\n{text}", name)
        assert run(table, "--out", f"{folder}/{out}", "--bundle", toy_bundle.root, *more) == 0
    assert "reused    2 recordings" in capsys.readouterr().out
    found = {row["id"]: row for row in pq.read_table(folder / out).to_pylist()}
    assert (len(found), pq.read_table(folder / out).num_rows) == (6, 6)
    for key, values in told.items():
        row, (start, end) = found[key], (float(values["start"]), float(values["end"]))
        assert (row["given_label"], str(row["when"])) == (values["label"], values["when"])
        assert (row["given_start"], row["given_end"], row["start"], row["end"]) == (start, end, start, end)


def test_only_what_changed_is_made_again(folder: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--out", folder / "o.parquet", "--bundle", toy_bundle.root)
    assert run(listed(folder, "path,id,x\na.wav,1,1.5\ncall.wav,2,\n"), *given) == 0
    assert run(listed(folder, "path,id,x\na.wav,1,1.5\ncall.wav,2,7\n"), *given, "--resume") == 0
    assert "reused    1 recordings" in capsys.readouterr().out
    assert [row["x"] for row in rows(folder / "o.parquet")] == [1.5, 7]
    assert run(listed(folder, "path,id,x\na.wav,1,1\ncall.wav,2,7\n"), *given, "--resume") == 0
    assert "reused    1 recordings" in capsys.readouterr().out
    assert run(listed(folder, "path,id,x\na.wav,1,1.5\ncall.wav,2,7\n"), *given, "--resume") == 0
    # A column that has become text: the same values are the same rows no longer, but no failure either.
    capsys.readouterr()
    assert run(listed(folder, "path,id,x\na.wav,1,1.5\ncall.wav,2,none of it\n"), *given, "--resume") == 0
    assert [row["x"] for row in rows(folder / "o.parquet")] == ["1.5", "none of it"]
    assert run(listed(folder, "path,id,x\na.wav,1,1.5\ncall.wav,2,2\n"), *given, "--resume") == 0
    assert "reused    1 recordings" in capsys.readouterr().out
    assert [row["x"] for row in rows(folder / "o.parquet")] == ["1.5", "2"]
    (folder / "list.jsonl").write_text('{"path": "a.wav", "id": "1", "x": [1]}\n')
    assert run(folder / "list.jsonl", *given, "--resume") == 2
    assert "another type of column 'x'; got string; expected list<" in capsys.readouterr().err


def test_an_output_without_the_stretches_as_columns_is_gone_on_with(folder: Path, toy_bundle: Bundle) -> None:
    """Version 0.1.0 handed no stretches through."""
    given = ("--out", folder / "o.parquet", "--bundle", toy_bundle.root)
    assert run(listed(folder, "path,start,end,id\na.wav,0,1,u1\n"), *given) == 0
    table = pq.read_table(folder / "o.parquet").drop_columns(["given_start", "given_end"])
    pq.write_table(table, folder / "o.parquet")
    assert run(listed(folder, "path,start,end,id\na.wav,0,1,u1\ncall.wav,4,7,u2\n"), *given, "--resume") == 0
    found = rows(folder / "o.parquet")
    assert [(row["id"], row["start"], row["end"]) for row in found] == [("u1", 0, 1), ("u2", 4, 7)]
    assert list(found[0]) == table.column_names


def test_columns_that_look_like_ours_are_handed_through_untouched(folder: Path, toy_bundle: Bundle) -> None:
    text = (
        "path,old_p_happy,given_p_happy,label,given_label,wav2vec2_p_sad,segments_p_sad,when\n"
        "call.wav,high,0.5,sad,x,1.5,2,2024-01-02 03:04:05\na.wav,low,,calm,y,,3,2024-01-02 03:04:06\n"
    )
    given = (listed(folder, text), "--out", folder / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given, "--window", 3, "--aggregate", folder / "files.parquet") == 0
    first, second = rows(folder / "files.parquet")
    assert (first["old_p_happy"], first["given_p_happy"], first["given_label"]) == ("high", 0.5, "x")
    assert (first["given_given_label"], first["given_wav2vec2_p_sad"], first["segments_p_sad"]) == ("sad", 1.5, 2)
    assert (second["old_p_happy"], second["given_p_happy"], str(second["when"])) == ("low", None, "2024-01-02 03:04:06")
    assert (first["segments"], second["segments"]) == (3, 1)
    segments = rows(folder / "o.parquet")
    assert first["p_happy"] == pytest.approx(np.mean([row["p_happy"] for row in segments[:3]]), abs=1e-6)
    schemas = [pq.read_schema(folder / name) for name in ("o.parquet", "files.parquet")]
    assert [schemas[0].field(name).type for name in first if name != "segments"] == schemas[1].types[:-1]
    assert run(*given, "--window", 3, "--no-branches", "--overwrite", "--aggregate", folder / "files.parquet") == 0
    assert rows(folder / "files.parquet")[0]["wav2vec2_p_sad"] == 1.5  # no name of ours then


def test_ids_that_are_partly_empty_are_filled_in(folder: Path, toy_bundle: Bundle) -> None:
    pq.write_table(pa.table({"path": ["a.wav", "call.wav"], "id": [None, "two"]}), folder / "list.parquet")
    for table in (listed(folder, "path,id\na.wav,\ncall.wav,two\n"), folder / "list.parquet"):
        given = (table, "--out", folder / "o.parquet", "--bundle", toy_bundle.root, "--overwrite")
        assert run(*given, "--window", 3, "--aggregate", folder / "files.parquet") == 0
        assert [row["id"] for row in rows(folder / "files.parquet")] == ["a.wav", "two"]
        assert run(*given[:-1], "--window", 3, "--resume") == 0


def test_the_root_of_a_table_is_an_option(folder: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    (folder / "lists").mkdir()
    table = listed(folder / "lists", "path\na.wav\n")
    assert run(table, "--out", folder / "o.parquet", "--bundle", toy_bundle.root, "--root", folder) == 0
    assert [row["file"] for row in rows(folder / "o.parquet")] == ["a.wav"]
    assert run(folder / "a.wav", "--out", folder / "p.parquet", "--bundle", toy_bundle.root, "--root", folder) == 2


def test_a_stretch_of_audio_inside_parquet(folder: Path, toy_bundle: Bundle) -> None:
    content = (folder / "call.wav").read_bytes()
    table = pa.table({"audio": pa.array([content] * 2, pa.binary()), "start": [2.0, 2.0], "end": [4.0, 40.0]})
    pq.write_table(table, folder / "list.parquet")
    assert run(folder / "list.parquet", "--out", folder / "o.parquet", "--bundle", toy_bundle.root) == 3
    first, second = rows(folder / "o.parquet")
    assert (first["start"], first["end"], first["status"]) == (2.0, 4.0, "ok")
    assert "9.000 s" in second["error"]


def test_segments_of_other_tools_are_scored(folder: Path, toy_bundle: Bundle) -> None:
    (folder / "notes").mkdir()
    lines = "".join(
        f"SPEAKER call 1 {start} 1.5 <NA> <NA> {who} <NA> <NA>\n" for start, who in ((0, "A"), (0, "B"), (8.5, "A"))
    )
    (folder / "notes" / "all.rttm").write_text(lines)
    given = (folder / "notes" / "all.rttm", "--out", folder / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given) == 2
    assert run(*given, "--root", folder) == 3
    found = rows(folder / "o.parquet")
    assert [(row["file"], row["id"], row["speaker"], row["start"], row["end"], row["status"]) for row in found] == [
        ("call.wav", "call.wav@0-1.5/A", "A", 0.0, 1.5, "ok"),
        ("call.wav", "call.wav@0-1.5/B", "B", 0.0, 1.5, "ok"),
        ("call.wav", "call.wav@8.5-10/A", "A", None, None, "error"),
    ]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ser_batch", *map(str, arguments), "--workers", "1", *RUNTIME]


def test_names_beyond_ascii_are_scored_where_the_locale_is_ascii(folder: Path, toy_bundle: Bundle) -> None:
    soundfile.write(folder / "😀é.wav", np.full(16_000, 0.1), 16_000)
    table = listed(folder, "path,speaker\n😀é.wav,ü\nnicht.wav,ß\n", "👀.csv")
    given = command("run", table, "--out", folder / "ö.parquet", "--bundle", toy_bundle.root)
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(given, env=environment, cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (3, False), done.stderr
    assert [(row["file"], row["speaker"], row["status"]) for row in rows(folder / "ö.parquet")] == [
        ("😀é.wav", "ü", "ok"), ("nicht.wav", "ß", "error"),
    ]  # fmt: skip


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])  # each number alone: tests/ser_batch/test_platforms.py
def test_standard_streams_that_are_closed_do_no_harm(folder: Path, toy_bundle: Bundle, closed: str) -> None:
    given = command("run", folder / "a.wav", "--out", folder / "o.parquet", "--bundle", toy_bundle.root, "--json")
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *given], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert [row["status"] for row in rows(folder / "o.parquet")] == ["ok"]
