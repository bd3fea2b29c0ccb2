"""Recordings in a bucket, which is a folder of this disk; real servers are in tests/object_stores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

import ser_batch.storage.bucket
import ser_batch.storage.objects
from ser_batch.clips import Segmentation
from ser_batch.decode.segments import decode
from ser_batch.errors import InputError, StoreError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, current_version
from ser_batch.recordings.remote import find_objects
from ser_batch.storage.bucket import PATIENCE, Bucket
from support.encoded import ENCODED, encode
from support.failing_store import AWAY, Failing
from support.recordings import RULE, write

NAMES = ["a/1.wav", "a/2.flac", "a/b/3.wav", "a/b/c/4.wav", "a/.5.wav", "a/.x/6.wav", "a/7.bin", "8.wav", "a/[9].wav"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the bucket "b"."""
    root = tmp_path / "b"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    disk = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(ser_batch.storage.bucket, "open_bucket", lambda scheme, name: Bucket(scheme, name, disk))
    return root


def files(*roots: str) -> list[str]:
    return [recording.name for recording in find_recordings(roots)]


def test_a_prefix_is_listed_as_a_folder_is(folder: Path) -> None:
    assert files("s3://b/a") == files("s3://b/a/") == files(str(folder / "a"))
    assert files("s3://b") == files(str(folder))
    found = find_recordings(["s3://b/a"])[0]
    assert (found.path, found.version) == ("s3://b/a/1.wav", current_version(Recording("s3://b/a/1.wav", "")))
    assert found.version is not None
    assert found.version[0] == 7


def test_objects_that_hold_audio_are_taken_and_the_rest_is_counted(folder: Path) -> None:
    write(folder / "a" / "b" / "10")
    (folder / "a" / "notes.txt").write_text("x")
    assert files("s3://b/a") == files(str(folder / "a"))
    assert "b/10" in files("s3://b/a") and "b/10" in files("s3://b/a/**")
    left_out = {"bin": 1, "txt": 1}
    assert find_recordings(["s3://b/a"]).left_out == find_recordings([str(folder / "a")]).left_out == left_out
    (folder / "a" / "[x]").mkdir()
    write(folder / "a" / "[x]" / "11.wav")
    assert files("s3://b/a/[x]/*.wav") == files(f"{folder}/a/[x]/*.wav") == ["11.wav"]


@pytest.mark.parametrize(
    "pattern",
    ["a/*.wav", "a/*", "**/*.wav", "a/**/*.wav", "a/**", "*/b/*.wav", "a/b/?/4.wav", "*", "a/7*.bin", "a/[0-9].*"],
)
def test_globs_match_as_on_disk(folder: Path, pattern: str) -> None:
    assert files(f"s3://b/{pattern}") == sorted(files(f"{folder}/{pattern}"))


def test_a_glob_below_a_prefix_with_brackets(folder: Path) -> None:
    (folder / "calls [1]").mkdir()
    (folder / "calls [1]" / "x.wav").write_bytes(b"x")
    (folder / "calls [1]" / "l.csv").write_text("path\nx.wav\n")
    assert files("s3://b/calls [1]/*.wav") == files(f"{folder}/calls [1]/*.wav") == ["x.wav"]
    assert [each.path for each in find_recordings(["s3://b/calls [1]/*.csv"])] == ["s3://b/calls [1]/x.wav"]


def test_objects_and_several_roots_keep_their_names(folder: Path) -> None:
    assert files("s3://b/a/1.wav") == ["1.wav"]
    assert files("s3://b/a/7.bin") == ["7.bin"]  # named by itself
    assert files("s3://b/a/[9].wav") == ["[9].wav"]  # a name before it is a pattern
    assert files("s3://b/a/b/c", str(folder / "8.wav")) == ["s3://b/a/b/c/4.wav", str(folder / "8.wav")]
    assert files("s3://b/8.wav", "s3://b/8.wav") == ["s3://b/8.wav"]
    with pytest.raises(InputError, match="does not exist"):
        find_objects("s3://b/nothing", Counter())
    with pytest.raises(InputError, match="no audio found"):
        find_recordings(["s3://b/none*.wav"])


def test_tables_name_objects_relative_to_their_own_place(folder: Path, tmp_path: Path) -> None:
    (folder / "list.csv").write_text("path\na/1.wav\ns3://b/8.wav\n")
    sources = find_recordings(["s3://b/list.csv"])
    assert [(recording.path, recording.name) for recording in sources] == [
        ("s3://b/a/1.wav", "a/1.wav"),
        ("s3://b/8.wav", "s3://b/8.wav"),
    ]
    (folder / "more.jsonl").write_text('{"path": "a/2.flac"}\n')
    (folder / "paths.txt").write_text("a/1.wav\n\n../c/x.wav\n")
    assert [recording.path for recording in find_recordings(["s3://b/*.jsonl"])] == ["s3://b/a/2.flac"]
    assert len(find_recordings(["s3://b/paths.txt"])) == 2
    (folder / "sets.parquet").mkdir()
    (folder / "sets.parquet" / "x.wav").write_bytes(b"1")
    assert [recording.name for recording in find_recordings(["s3://b/sets.parquet"])] == ["x.wav"]
    (tmp_path / "local.csv").write_text("path\ns3://b/8.wav\n")
    assert [recording.path for recording in find_recordings([str(tmp_path / "local.csv")])] == ["s3://b/8.wav"]


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "webm", "adts", "wma", "amr"])
@pytest.mark.parametrize("window", [None, 3.0])
def test_an_object_is_read_as_the_file_is(folder: Path, kind: str, window: float | None) -> None:
    path = folder / f"x.{kind}"
    if kind in ENCODED:
        encode(path, kind, 7.0)
    else:
        write(path, 7.0, rate=44_100, kind=kind)
    segmentation = Segmentation(RULE, window=window)
    heard, expected = (list(decode(Recording(each, "x"), segmentation)) for each in (f"s3://b/x.{kind}", str(path)))
    assert [row[2:] for row, _ in heard] == [row[2:] for row, _ in expected]
    for (_, one), (_, other) in zip(heard, expected, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one, other)


def test_bad_objects_are_rows(folder: Path) -> None:
    (folder / "empty.wav").write_bytes(b"")
    write(folder / "cut.wav", 3.0)
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:100_000])
    reasons = [
        next(iter(decode(Recording(f"s3://b/{name}", name), Segmentation(RULE))))[0].error or ""
        for name in ("empty.wav", "cut.wav", "8.wav", "gone.wav")
    ]
    words = ["is empty", "is truncated", "cannot be decoded", "cannot be read"]
    assert [word in reason for word, reason in zip(words, reasons, strict=True)] == [True] * 4, reasons
    assert current_version(Recording("s3://b/gone.wav", "")) == UNKNOWN_VERSION


def test_a_store_that_is_away_is_no_recordings_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    bucket = Bucket("s3", "b", Failing(disk, lambda *_: AWAY))  # type: ignore[arg-type]
    monkeypatch.setattr(ser_batch.storage.bucket, "open_bucket", lambda scheme, name: bucket)
    monkeypatch.setenv(PATIENCE, "0")
    for recording in (Recording("s3://b/8.wav", "x"), Recording("s3://b/8.wav", "x", version=(5, 0))):
        with pytest.raises(StoreError, match="cannot be reached"):
            list(decode(recording, Segmentation(RULE)))


@pytest.mark.parametrize("kind", ["wav", "mov", "wv", "mka", "wav-g722"])
@pytest.mark.parametrize("channels", ["mix", "split"])
def test_a_store_that_goes_in_the_middle_of_a_recording_ends_nothing_but_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, channels: str
) -> None:
    if kind == "wav":
        write(folder / "long.wav", 90.0)
    else:
        monkeypatch.setattr(ser_batch.storage.objects, "WHOLE", 1 << 18)
        monkeypatch.setattr(ser_batch.storage.objects, "BLOCK", 1 << 17)
        encode(folder / "long.wav", kind, 90.0)
    rows = decode(Recording("s3://b/long.wav", "x"), Segmentation(RULE, window=3, channels=channels))
    next(rows)

    def away(*_: object) -> bytes:
        raise StoreError("the store of s3://b cannot be reached")

    monkeypatch.setattr("ser_batch.storage.objects.ObjectFile._fetch", away)
    with pytest.raises(StoreError, match="cannot be reached"):
        assert all(row.status == "ok" for row, _ in rows)
