"""Labels and parts read from files, and the matching of recordings with names."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import InputError
from ser_batch.evaluation.truth import match, ravdess_labels, read_labels, read_part, read_truth


def test_equal_paths_match_however_they_are_written() -> None:
    matching = match(["a/x.wav", "a/y.wav"], ["./a/y.wav", "a//x.wav", "a/z.wav"])
    assert matching.names == ("a//x.wav", "./a/y.wav")
    assert matching.missing == ("a/z.wav",)
    assert not matching.by_base_name and not matching.ambiguous


def test_unique_base_names_stand_in_for_other_roots() -> None:
    matching = match(["/data/a/x.wav", "y.wav", "q.wav"], ["a/x.wav", "b/y.wav"])
    assert matching.names == ("a/x.wav", "b/y.wav", None)
    assert matching.by_base_name == {0, 1} and not matching.missing


@pytest.mark.parametrize(
    ("files", "wanted"), [(["1/x.wav", "2/x.wav"], ["a/x.wav"]), (["x.wav"], ["a/x.wav", "b/x.wav"])]
)
def test_a_base_name_of_several_recordings_matches_none(files: list[str], wanted: list[str]) -> None:
    matching = match(files, wanted)
    assert matching.names == (None,) * len(files)
    assert matching.ambiguous == set(range(len(files))) and matching.missing == tuple(wanted)


def test_the_same_recording_in_another_format_is_found() -> None:
    found = match(["a/1.wav", "a/2.wav", "a/3.wav"], ["x/1.flac", "x/2.flac", "y/2.mp3"])
    assert found.names == ("x/1.flac", None, None)
    assert found.by_base_name == {0} and found.ambiguous == {1} and found.missing == ("x/2.flac", "y/2.mp3")


def test_an_equal_path_wins_over_equal_base_names() -> None:
    matching = match(["a/x.wav", "b/x.wav"], ["b/x.wav", "a/x.wav"])
    assert matching.names == ("a/x.wav", "b/x.wav") and not matching.ambiguous


def test_ravdess_names_and_others() -> None:
    found = ravdess_labels(["Actor_01/03-01-05-01-01-01-01.flac", "speech.wav", "03-01-08-02-01-01-24.wav"])
    assert found == {"Actor_01/03-01-05-01-01-01-01.flac": "angry", "03-01-08-02-01-01-24.wav": "surprised"}


@pytest.mark.parametrize("column", ["path", "file"])
def test_csv_and_parquet_labels(column: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"speaker,{column},label\n1,a/x.wav,01\n2,b.wav,null\n")
    words = pa.array(["01", "null"]).dictionary_encode()
    pq.write_table(pa.table({column: ["a/x.wav", "b.wav"], "label": words}), tmp_path / "l.parquet")
    for name in ("l.csv", "l.parquet"):
        assert read_labels(tmp_path / name) == {"a/x.wav": "01", "b.wav": "null"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,mood\nx.wav,sad\n", "column label"),
        ("name,label\nx.wav,sad\n", "column path"),
        ("path,label\nx.wav,sad\nx.wav,calm\n", r"x\.wav twice"),
        ("", "holds nothing"),
    ],
)
def test_a_table_that_is_none_of_labels_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "l.csv")


def test_parts_of_a_split(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"name": "paper-seed0", "train": ["a"], "validation": [], "test": ["b", "c"]}))
    assert read_part(path, "test") == ("paper-seed0", ("b", "c"))
    with pytest.raises(InputError, match="validation"):
        read_part(path, "validation")
    for content in ("{}", "[]", "{", '{"test": [1]}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"split\.json"):
            read_part(path, "test")
    with pytest.raises(InputError, match="absent"):
        read_part(tmp_path / "absent.json", "test")


def test_case_and_other_systems_slashes_are_forgiven_where_unambiguous() -> None:
    found = match(["a/x.wav", "B.WAV", "c.wav", "C.flac"], ["a\\x.wav", "b.wav", "c.mp3"])
    assert found.names == ("a\\x.wav", "b.wav", "c.mp3", None)
    assert found.by_base_name == {1, 2} and not found.missing


def test_stretches_without_ids_are_known_as_the_run_names_them(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,start,end,label,who\na.wav,0,1,sad,x\na.wav,1,,calm,\n,1,2,sad,x\n")
    truth = read_truth(str(tmp_path / "l.csv"), by_id=True, group="Who")
    assert truth.labels == {"a.wav@0-1": "sad", "a.wav@1-": "calm"}
    assert (truth.groups, truth.nameless, truth.by_id) == ({"a.wav@0-1": "x", "a.wav@1-": None}, 1, True)
    with pytest.raises(InputError, match="twice; got the labels sad and calm"):
        read_truth(str(tmp_path / "l.csv"), by_id=False)
    with pytest.raises(InputError, match="no column 'age'"):
        read_truth(str(tmp_path / "l.csv"), by_id=True, group="age")
