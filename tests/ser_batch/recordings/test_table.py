from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import AudioError, InputError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings
from support.recordings import touch, write


def listed(tmp_path: Path, name: str, text: str) -> list[tuple[str, str, str, tuple[float, float] | None]]:
    (tmp_path / name).write_text(text)
    found = find_recordings([tmp_path / name])
    return [(recording.path, recording.name, recording.key, recording.span) for recording in found]


def test_a_glob_matches_and_names_are_below_its_first_wildcard(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "a/b/2.wav", "a/b/3.flac", "a/.hidden.wav", "a/notes.txt", "c/4.wav")
    files = {
        "a/*": ["1.wav"],
        "**/*.wav": ["a/1.wav", "a/b/2.wav", "c/4.wav"],
        "a/**": ["1.wav", "b/2.wav", "b/3.flac"],
    }
    for pattern, expected in files.items():
        found = find_recordings([tmp_path / pattern])
        assert [recording.name for recording in found] == expected
        assert all(Path(recording.path).exists() for recording in found)
    with pytest.raises(InputError, match="no audio found"):
        find_recordings([tmp_path / "*.ogg"])


def test_lists_in_every_format_are_read_alike(tmp_path: Path) -> None:
    expected = [(str(tmp_path / name), name, name, None) for name in ("b.wav", "x/a.wav")]
    assert listed(tmp_path, "l.txt", "b.wav\n\nx/a.wav\n") == expected
    assert listed(tmp_path, "l.csv", "path,speaker\nb.wav,1\nx/a.wav,2\n") == expected
    assert listed(tmp_path, "l.jsonl", '{"path": "b.wav"}\n{"path": "x/a.wav"}\n') == expected
    pq.write_table(pa.table({"path": ["b.wav", "x/a.wav"]}), tmp_path / "l.parquet")
    assert [recording.name for recording in find_recordings([tmp_path / "l.parquet"])] == ["b.wav", "x/a.wav"]
    assert listed(tmp_path, "abs.csv", f"path\n{tmp_path}/b.wav\n")[0][0] == f"{tmp_path}/b.wav"


def test_stretches_of_files_are_recordings_of_their_own(tmp_path: Path) -> None:
    rows = listed(tmp_path, "l.csv", "path,start,end\na.wav,0,1.5\na.wav,2,4\nb.wav,,\n")
    assert [row[2:] for row in rows] == [("a.wav@0-1.5", (0, 1.5)), ("a.wav@2-4", (2, 4)), ("b.wav", None)]
    rows = listed(tmp_path, "l.csv", "path,start,duration,id\na.wav,1,2,one\na.wav,3,2,two\n")
    assert [row[2:] for row in rows] == [("one", (1, 3)), ("two", (3, 5))]


def test_other_columns_are_handed_through_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label,age\na.wav,01,7\n")
    extra = find_recordings([tmp_path / "l.csv"]).extra
    assert extra is not None
    assert extra.to_pylist() == [{"label": "01", "age": 7}]


def test_numbers_that_are_names_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "path,speaker,age,phone,share,day\n"
        "a.wav,007,7,12345678901234567890,0.5,2024-01-02\n"
        "b.wav,8,-70,1,-1e3,2024-01-03\n"
    )
    extra = find_recordings([tmp_path / "l.csv"]).extra
    assert extra is not None
    assert extra.drop_columns("day").to_pylist() == [
        {"speaker": "007", "age": 7, "phone": "12345678901234567890", "share": 0.5},
        {"speaker": "8", "age": -70, "phone": "1", "share": -1000.0},
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "name\na.wav\n", "names no recordings"),
        ("l.csv", "path\n", "no rows"),
        ("l.csv", "", "holds nothing"),
        ("l.csv", "a.wav,sad\nb.wav,calm\n", "got columns a.wav, sad; expected one of path, file"),
        ("l.csv", "path,label,label\na.wav,sad,x\n", "'label' twice"),
        ("l.jsonl", "no json", "cannot be read"),
        ("l.jsonl", "", "cannot be read"),
        ("l.parquet", "no parquet", "cannot be read"),
        ("l.ods", "x", "of a kind that is not read"),
        ("l.xlsx", "no workbook", "cannot be read"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        listed(tmp_path, name, text)
    assert str(refused.value).startswith(f"the table {tmp_path / name} ")


def test_a_table_and_a_folder_are_two_runs(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "l.txt").write_text("a.wav")
    with pytest.raises(InputError, match="two runs"):
        find_recordings([tmp_path / "l.txt", tmp_path])


def test_audio_inside_parquet_is_found_row_by_row(tmp_path: Path) -> None:
    contents = [write(tmp_path / "x.wav", 0.1 * (k + 1)).read_bytes() for k in range(5)]
    audio = [{"bytes": content, "path": f"{k}.wav" if k else None} for k, content in enumerate(contents)]
    for name, rows in (("a", audio[:3]), ("b", [*audio[3:], {"bytes": None, "path": "gone.wav"}])):
        table = pa.table({"audio": rows, "speaker": list(range(len(rows)))})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    inputs = find_recordings([tmp_path / "*.parquet"])
    assert [recording.name for recording in inputs] == ["a.parquet#0", *(f"{k}.wav" for k in range(1, 5)), "gone.wav"]
    assert [recording.key for recording in inputs][3:] == ["b.parquet#0", "b.parquet#1", "b.parquet#2"]
    assert [inputs.content(recording) for recording in inputs[:5]] == contents
    assert inputs.content(inputs[1]) == contents[1]  # backwards, too
    with pytest.raises(AudioError, match=r"gone\.wav"):
        inputs.content(inputs[5])
    assert inputs.extra is not None
    assert inputs.extra["speaker"].to_pylist() == [0, 1, 2, 0, 1, 2]


def test_shards_share_everything_out_and_keep_theirs_when_more_comes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k}.wav" for k in range(40)))
    shards = [{recording.name for recording in find_recordings([tmp_path], (i, 3))} for i in (1, 2, 3)]
    assert set.union(*shards) == {f"{k}.wav" for k in range(40)}
    assert sum(map(len, shards)) == 40
    touch(tmp_path, *(f"more-{k}.wav" for k in range(40)))
    for i, shard in enumerate(shards, start=1):
        assert shard < {recording.name for recording in find_recordings([tmp_path], (i, 3))}
    with pytest.raises(InputError, match="no such shard"):
        find_recordings([tmp_path], (4, 3))


def test_a_recording_is_found_by_its_number_and_slices_are_recordings(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k:03}.wav" for k in range(40)), os.fsdecode(b"\xff.wav"))
    found = find_recordings([tmp_path])
    listed = list(found)
    assert [found[k] for k in range(len(found))] == listed
    assert found[-1] == listed[-1] and Path(found[-1].path).exists()
    assert [recording.path for recording in found[5:9]] == [recording.path for recording in listed[5:9]]
    assert list(found.keys()) == list(found.keys()) == [recording.key for recording in listed]
    with pytest.raises(IndexError):
        found[len(found)]


def test_given_recordings_make_the_same_table(tmp_path: Path) -> None:
    given = [
        Recording("/a/1.wav", "1.wav", row=0),
        Recording("s3://b/\udcff.wav", r"\xff.wav", "two", (0.5, 2.0), 1, (7, 9)),
    ]
    assert list(Recordings.of(given)) == given
    assert Recordings.of(given).key == "id" and Recordings.of(given[:1]).key == "file"
