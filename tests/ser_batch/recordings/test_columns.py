"""What the columns of a table mean, and what a row costs that makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import UNKNOWN_VERSION, current_version
from ser_batch.recordings.table import Recordings
from ser_batch.recordings.times import seconds


def found(folder: Path, text: str, name: str = "l.csv") -> Recordings:
    (folder / name).write_text(text, encoding="utf-8")
    return find_recordings([folder / name])


def test_a_stretch_without_an_end_goes_to_the_end(tmp_path: Path) -> None:
    text = (
        "file,start,end\na.wav,0 days 00:00:00,0 days 00:00:01\na.wav,0 days 00:00:01,NaT\nb.wav,0 days,\n"
        "c.wav,,2.5\nd.wav,1.5,\n"
    )
    spans = [(0, 1), (1, np.inf), None, (0, 2.5), (1.5, np.inf)]
    listed = found(tmp_path, text)
    assert [each.span for each in listed] == spans
    assert [each.key for each in listed] == ["a.wav@0-1", "a.wav@1-", "b.wav", "c.wav@0-2.5", "d.wav@1.5-"]
    assert not any(each.problem for each in listed)
    assert listed.extra is not None
    assert listed.extra["end"].to_pylist() == [1, None, None, 2.5, None]


@pytest.mark.parametrize(
    ("columns", "row", "span"),
    [
        ("offset,duration", "2.0,2.5", (2.0, 4.5)),
        ("start,duration", "1,2", (1.0, 3.0)),
        ("Start,End", "1,2", (1.0, 2.0)),
        ("duration", "2.5", (0.0, 2.5)),
        ("start,offset,end", "1,7,2", (1.0, 2.0)),  # `offset` is a column like others beside `start`
        ("start_time,end_time", "1,2", (1.0, 2.0)),
        ("begin,end", "1,2", (1.0, 2.0)),
        ("start,stop", "1,2", (1.0, 2.0)),
        ("start,duration,end_time", "1,2,9", (1.0, 3.0)),
        ("Start MS,end_in_ms", "500,1500", (0.5, 1.5)),
        ("start_ms,duration", "500,1", (0.5, 1.5)),
        ("onset,offset", "1,2", (1.0, 2.0)),  # sed_eval and DCASE
        ("onset,duration", "1,2", (1.0, 3.0)),  # BIDS
        ("tmin,tmax", "1,2", (1.0, 2.0)),  # Praat's tables
    ],
)
def test_which_columns_make_a_stretch(tmp_path: Path, columns: str, row: str, span: tuple[float, float]) -> None:
    assert found(tmp_path, f"path,{columns}\na.wav,{row}\n")[0].span == span


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("start_time,end_time", "14:03:22,14:05:00"),
        ("start_time,end_time", "2026-05-01 14:03:22,2026-05-01 14:05:00"),
        ("start_time,end_time", "1714550400,1714550500"),
        ("begin,stop", "yes,no"),
        ("duration_ms", "3704"),
    ],
)
def test_when_a_call_was_is_no_stretch_of_it(tmp_path: Path, columns: str, row: str) -> None:
    listed = found(tmp_path, f"path,{columns}\na.wav,{row}\n")
    assert listed[0].span is None and not listed[0].problem
    assert listed.extra is not None and listed.extra.column_names == columns.split(",")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", 1.5), ("1,5", 1.5), ("00:01:02.5", 62.5), ("1:02", 62.0), ("00:01:02,500", 62.5), ("1e1", 10.0),
        ("0 days 00:00:01.250000", 1.25), ("1 days 00:00:00", 86400.0), ("2 days", 172800.0),
        ("-1 days +23:59:59", -1.0),
        ("1 hour", 3600.0), ("500 milliseconds", 0.5), ("1,5 secs", 1.5), ("2 minutes", 120.0),
        ("250ms", 0.25), ("2 s", 2.0), ("NaT", None), ("", None), ("nan", None), (None, None), ("-", None),
    ],
)  # fmt: skip
def test_times_in_words(text: str | None, expected: float | None) -> None:
    times, problems = seconds(pa.chunked_array([pa.array([text], pa.string())]))
    assert not problems
    assert times[0] == pytest.approx(expected) if expected is not None else np.isnan(times[0])


@pytest.mark.parametrize("text", ["x", "1.5 parsecs", "soon", "1:2:3:4", "12/5"])
def test_what_is_no_time_is_a_problem(text: str) -> None:
    assert text in seconds(pa.chunked_array([[text]]))[1][0]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_types_of_times(tmp_path: Path, unit: str) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    kinds: dict[str, Any] = {"start": pa.duration(unit), "end": pa.duration(unit)}
    table = pa.table(
        {"file": ["a.wav", "b.wav"]} | {n: pa.array([(i + 1) * per, None], k) for i, (n, k) in enumerate(kinds.items())}
    )
    pq.write_table(table, tmp_path / "l.parquet")
    assert [each.span for each in find_recordings([tmp_path / "l.parquet"])] == [(1.0, 2.0), None]


def test_a_row_that_makes_no_sense_costs_that_row(tmp_path: Path) -> None:
    text = (
        "path,start,end,speaker\na.wav,0,1,x\n,0,1,x\nb.wav,3,1,x\nc.wav,1,1,x\nd.wav,-1,1,x\ne.wav,soon,1,x\n"
        "f.wav,0,inf,x\nhttps://h/g.wav,0,1,x\n"
    )
    listed = found(tmp_path, text)
    problems = [each.problem for each in listed]
    expected = [
        "", "names no file; got an empty cell in column 'path'", "no proper stretch", "of length 0: start 1, end 1",
        "no proper stretch", "no proper start; got 'soon'; expected seconds", "", "address in the web",
    ]  # fmt: skip
    assert all(
        words in problem and bool(words) == bool(problem) for words, problem in zip(expected, problems, strict=True)
    )
    assert listed[1].name == "l.csv#1"
    assert current_version(listed[2]) == UNKNOWN_VERSION
    assert listed[6].span is None
    assert list(Recordings.of(listed)) == list(listed)


@pytest.mark.parametrize("columns", ["id", "ID", "Id"])
def test_ids_that_are_partly_empty(tmp_path: Path, columns: str) -> None:
    listed = found(tmp_path, f"path,{columns}\na.wav,\nb.wav,two\nc.wav,  \n")
    assert [each.key for each in listed] == ["a.wav", "two", "c.wav"]
    assert listed.extra is not None and listed.extra["id"].to_pylist() == ["a.wav", "two", "c.wav"]
    pq.write_table(pa.table({"path": ["a.wav", "b.wav"], columns: [None, 2]}), tmp_path / "l.parquet")
    assert [each.key for each in find_recordings([tmp_path / "l.parquet"])] == ["a.wav", "2"]


def test_a_recording_listed_twice_is_an_error_the_second_time(tmp_path: Path) -> None:
    listed = found(tmp_path, "path\na.wav\nb.wav\na.wav\n")
    assert [(each.key, bool(each.problem)) for each in listed] == [
        ("a.wav", False), ("b.wav", False), ("a.wav#2", True),
    ]  # fmt: skip
    assert "row 0" in listed[2].problem and listed.key == "id"
    given = found(tmp_path, "path,id\na.wav,u\nb.wav,u\n")
    assert [(each.key, bool(each.problem)) for each in given] == [("u", False), ("u#1", True)]


def test_stretches_far_into_a_long_recording_keep_apart(tmp_path: Path) -> None:
    listed = found(tmp_path, "path,start,end\na.wav,10000.11,10000.12\na.wav,10000.12,10000.13\n")
    assert not any(each.problem for each in listed)
    assert [each.key for each in listed] == ["a.wav@10000.1-10000.1", "a.wav@10000.12-10000.13"]


def test_columns_with_a_meaning_may_be_there_twice_in_other_case(tmp_path: Path) -> None:
    listed = found(tmp_path, "path,Path,Label\na.wav,b.wav,x\n")
    assert listed[0].name == "a.wav"
    assert listed.extra is not None and listed.extra.to_pylist() == [{"Path": "b.wav", "Label": "x"}]
