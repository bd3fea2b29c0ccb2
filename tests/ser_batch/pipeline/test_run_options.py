"""`ser-batch run` with its options, through the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.protocol import backend_version
from ser_batch.verification.auto import choose
from ser_batch.verification.records import add_machine_entries, machine_id
from support.certificates import SOUND
from support.commands import run
from support.recordings import write


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio" / "a.wav", 7.0, rate=16_000)
    write(tmp_path / "audio" / "b.flac", 1.0, kind="flac")
    return tmp_path / "audio"


def rows(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def test_windows_and_their_aggregate(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    out, files = tmp_path / "o.parquet", tmp_path / "files.parquet"
    given = (audio, "--out", out, "--bundle", toy_bundle.root, "--window", 3, "--hop", 1.5, "--aggregate", files)
    assert run(*given) == 0
    expected = [("a.wav", 0, 3), ("a.wav", 1.5, 4.5), ("a.wav", 3, 6), ("a.wav", 4.5, 7), ("b.flac", 0, 1)]
    assert [(row["file"], row["start"], row["end"]) for row in rows(out)] == expected
    assert [(row["file"], row["segments"], row["end"]) for row in rows(files)] == [("a.wav", 4, 7), ("b.flac", 1, 1)]
    write(audio / "c.wav", 3.2)
    assert run(*given, "--resume") == 0
    assert [row["segments"] for row in rows(files)] == [4, 1, 2]


def test_rows_of_another_window_are_not_mixed_in(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given, "--window", 3) == 0
    assert run(*given, "--window", 2, "--resume") == 2
    assert "another configuration; got ser_batch.clip" in capsys.readouterr().err
    assert run(*given, "--window", 3, "--resume") == 0


def test_a_manifest_names_the_stretches_and_hands_its_columns_through(
    audio: Path, tmp_path: Path, toy_bundle: Bundle
) -> None:
    (tmp_path / "m.csv").write_text("path,start,end,label,speaker\naudio/a.wav,1,2,sad,x\naudio/a.wav,5,9,sad,y\n")
    given = (tmp_path / "m.csv", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given) == 3
    first, second = rows(tmp_path / "o.parquet")
    assert (first["file"], first["id"], first["start"], first["end"]) == ("audio/a.wav", "audio/a.wav@1-2", 1, 2)
    assert (first["given_label"], first["speaker"], first["status"]) == ("sad", "x", "ok")
    assert (second["status"], second["speaker"]) == ("error", "y")
    assert "ends before" in str(second["error"])
    (tmp_path / "m.csv").write_text("path,start,end,label,speaker\naudio/a.wav,1,2,sad,x\naudio/a.wav,5,7,sad,z\n")
    assert run(*given, "--resume") == 3  # the row of 5-9 is kept
    assert [row["id"] for row in rows(tmp_path / "o.parquet")] == [f"audio/a.wav@{t}" for t in ("1-2", "5-7", "5-9")]


def test_audio_inside_parquet_scores_as_the_files_do(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    names = ["a.wav", "b.flac"]
    content = [{"bytes": (audio / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"audio": content, "text": ["x", "y"]}), tmp_path / "hf.parquet")
    pq.write_table(pa.table({"audio": [{"bytes": b"no audio", "path": "c.wav"}]}), tmp_path / "bad.parquet")
    assert run(tmp_path / "bad.parquet", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root) == 3
    assert rows(tmp_path / "o.parquet")[0]["error"].startswith("cannot be decoded")
    (tmp_path / "o.parquet").unlink()
    assert run(tmp_path / "hf.parquet", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root) == 0
    assert run(audio, "--out", tmp_path / "files.parquet", "--bundle", toy_bundle.root) == 0
    for row, expected in zip(rows(tmp_path / "o.parquet"), rows(tmp_path / "files.parquet"), strict=True):
        assert (row["text"], row["id"]) == {"a.wav": ("x", "hf.parquet#0"), "b.flac": ("y", "hf.parquet#1")}[
            row["file"]
        ]
        same = set(expected) - {"source_size", "source_mtime_ns"}
        assert {name: row[name] for name in same} == {name: expected[name] for name in same}


def test_a_folder_of_parts_is_kept_and_added_to(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    given = (audio, "--out", f"{tmp_path}/parts/", "--bundle", toy_bundle.root)
    assert run(*given) == 0
    assert run(*given) == 2
    write(audio / "0.wav", 0.5)
    assert run(*given, "--resume") == 0
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "_SUCCESS", "part-000000.parquet", "part-000001.parquet",
    ]  # fmt: skip
    assert {row["file"] for row in rows(tmp_path / "parts")} == {"0.wav", "a.wav", "b.flac"}


def test_machines_get_json_and_the_log_keeps_failures(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (audio / "bad.wav").write_bytes(b"no audio")
    log = tmp_path / "log"
    given = (audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root, "--json", "--log", log)
    assert run(*given) == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["progress", "end"]
    assert (events[0]["files"], events[0]["total"], events[0]["failures"]) == (3, 3, 1)
    assert (events[1]["rows"], events[1]["statuses"]["ok"]) == (3, 2)
    assert events[1]["bottleneck"] in ("decode", "engine", "write")
    assert run(*given) == 2
    text = log.read_text()
    assert "failed: bad.wav: cannot be decoded" in text
    assert "stopped: " in text and "exists already" in text
    assert text.count("started: 3 recordings") == 1


def test_a_run_that_is_plainly_misconfigured_stops_and_can_be_mended(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (audio / "b.flac").read_bytes()
    for name in ("c.wav", "d.wav", "e.wav"):
        (audio / name).write_bytes(b"no audio")
    out = tmp_path / "o.parquet"
    given = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1)
    assert run(*given, "--max-errors", 1) == 2
    assert "--max-errors" in capsys.readouterr().err
    assert not out.exists()
    for name in ("c.wav", "d.wav"):
        (audio / name).write_bytes(good)
    assert run(*given, "--resume", "--fail-over", 0.3) == 3
    assert [row["status"] for row in rows(out)] == ["ok"] * 4 + ["error"]


def test_a_resumed_run_keeps_the_runtime_of_its_output_unless_another_is_stated(
    audio: Path,
    tmp_path: Path,
    toy_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`ser-batch verify` has let `auto` prefer another runtime since."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = (audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given) == 0
    faster = {"backend": "openvino", "precision": "fp32", "speed": 2.0, "version": backend_version("openvino")}
    add_machine_entries(toy_bundle, [dataclasses.replace(SOUND, machine=machine_id(), **faster)])
    assert choose(toy_bundle).backend == "openvino"
    write(audio / "c.wav", 1.0)
    assert run(*given, "--resume", "--backend", "openvino") == 2
    assert "another configuration; got ser_batch.backend onnxruntime" in capsys.readouterr().err
    assert run(*given, "--resume") == 0
    assert "on onnxruntime fp32, cpu (the runtime of the output that is gone on with)" in capsys.readouterr().out
    assert [row["file"] for row in rows(tmp_path / "o.parquet")] == ["a.wav", "b.flac", "c.wav"]


def test_errors_are_tried_again_only_when_asked(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    (tmp_path / "m.csv").write_text("path\naudio/a.wav\naudio/pipe.wav\n")
    (audio / "pipe.wav").symlink_to(tmp_path / "later.wav")
    (tmp_path / "later.wav").write_bytes(b"x")
    given = (tmp_path / "m.csv", "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root, "--json")
    assert run(*given) == 3
    assert run(*given, "--resume") == 3
    assert run(*given, "--retry-errors") == 2
    assert run(*given, "--resume", "--retry-errors") == 3
    assert [row["status"] for row in rows(tmp_path / "o.parquet")] == ["ok", "error"]


def test_shards_add_up(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    for k in range(6):
        write(audio / f"{k}.wav", 0.1)
    found: list[object] = []
    for i in (1, 2):
        out = tmp_path / f"{i}.parquet"
        assert run(audio, "--out", out, "--bundle", toy_bundle.root, "--shard", f"{i}/2") == 0
        found += [row["file"] for row in rows(out)]
    assert sorted(map(str, found)) == sorted(path.name for path in audio.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hop", "1"], "needs a window"),
        (["--window", "4"], "does not fit the bundle"),
        (["--shard", "3/2"], "no such shard"),
        (["--shard", "x"], "not of the form"),
        (["--retry-errors"], "give both"),
        (["--fail-over", "2"], "out of range"),
        (["--file-timeout", "0"], "needs workers"),
        (["--file-timeout", "nan"], "needs workers"),
        (["--aggregate", "{out}"], "a file of its own"),
        (["--log", "{out}/x"], "cannot be written"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    audio: Path,
    tmp_path: Path,
    toy_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    out = tmp_path / "o.parquet"
    given = [argument.format(out=out) for argument in arguments]
    assert run(audio, "--out", out, "--bundle", toy_bundle.root, *given) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_a_folder_holds_beside_recordings_is_counted_in_the_summary(
    audio: Path, tmp_path: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("notes.txt", "labels.txt", "x.json"):
        (audio / name).write_text("{}")
    for name in ("meeting.mp4", "memo.m4a", "old.wma"):
        (audio / name).write_bytes(bytes(2_048))
    given = (audio, "--out", tmp_path / "o.parquet", "--bundle", toy_bundle.root)
    assert run(*given) == 3
    assert "left out  2 .txt, 1 .json in the folders: no audio" in capsys.readouterr().out
    assert [row["status"] for row in rows(tmp_path / "o.parquet")] == ["ok", "ok", "error", "error", "error"]
    assert run(*given, "--resume", "--json") == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left_out"] == {"txt": 2, "json": 1}


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_embeddings_are_a_column_and_their_means_over_windows(
    audio: Path, tmp_path: Path, embedding_bundle: Bundle, kind: str
) -> None:
    (audio / "broken.wav").write_bytes(b"no audio")
    given = (audio, "--bundle", embedding_bundle.root, "--backend", "onnxruntime", "--embeddings", kind)
    out, windows, files = (tmp_path / f"{name}.parquet" for name in ("whole", "windows", "files"))
    assert run(*given, "--out", out) == 3
    assert run(*given, "--out", windows, "--window", 3, "--aggregate", files) == 3
    assert pq.read_schema(out).field("embedding").type == pq.read_schema(files).field("embedding").type
    assert (
        str(pq.read_schema(out).field("embedding").type)
        in {
            "float16": "fixed_size_list<element: halffloat>[8]",
            "float32": "fixed_size_list<element: float>[8]",
        }[kind]
    )
    said = json.loads(pq.read_schema(out).metadata[b"ser_batch.embedding"])
    assert said == {"branch": "wav2vec2", "size": 8, "type": kind}
    segments = {(row["file"], row["start"]): row["embedding"] for row in rows(windows)}
    assert segments["broken.wav", None] is None
    parts = np.array([segments["a.wav", start] for start in (0, 3, 6)], np.float64)
    whole = {row["file"]: row["embedding"] for row in rows(out)}
    np.testing.assert_allclose(whole["a.wav"], np.average(parts, axis=0, weights=[3, 3, 1]), atol=4e-3)
    means = {row["file"]: row["embedding"] for row in rows(files)}
    np.testing.assert_allclose(means["a.wav"], parts.mean(axis=0), atol=4e-3)
    assert whole["broken.wav"] is None and means["broken.wav"] is None
    np.testing.assert_allclose(whole["b.flac"], segments["b.flac", 0.0], atol=4e-3)


def test_an_output_is_gone_on_with_by_the_same_embeddings_alone(
    audio: Path, tmp_path: Path, embedding_bundle: Bundle, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, both = tmp_path / "plain.parquet", tmp_path / "both.parquet"
    given = (audio, "--bundle", embedding_bundle.root, "--backend", "onnxruntime")
    assert run(*given, "--out", plain) == 0
    assert run(*given, "--out", both, "--embeddings") == 0
    write(audio / "c.wav", 1.0)
    for out, options, message in (
        (plain, ["--embeddings"], 'has no embeddings, where this run has embeddings {"branch": "wav2vec2", '),
        (both, [], "where this run has no embeddings. Resume with the same --embeddings, or"),
        (both, ["--embeddings", "float32"], '"float16"}, where this run has embeddings {"branch"'),
    ):
        assert run(*given, "--out", out, "--resume", *options) == 2
        assert message in capsys.readouterr().err
    assert run(*given, "--out", both, "--embeddings", "float16", "--resume") == 0
    assert [row["embedding"] is None for row in rows(both)] == [False] * 3
    assert run(audio, "--bundle", toy_bundle.root, "--out", tmp_path / "o.parquet", "--embeddings") == 2
    assert "has no embedding: its graphs give probabilities alone" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()
