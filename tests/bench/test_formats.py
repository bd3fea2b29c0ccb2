from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from bench import archive, formats, results
from bench.archive import FORMATS, check_formats
from bench.cli import main
from bench.formats import differing, measure_formats, plain_loop
from bench.results import compare, warnings_of
from bench.tables import tables
from bench.throughput import run_pipeline
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer, Scores
from ser_batch.errors import AudioError
from ser_batch.recordings.find import find_recordings
from support.tones import write_tones


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tones and a broken file; see `write_tones`."""
    return write_tones(tmp_path_factory.mktemp("audio"))


class Counting(Scorer):
    """A scorer that remembers how many clips it was given at a time."""

    given: list[int]

    def score(self, waveform) -> Scores:
        self.given.append(len(waveform))
        return super().score(waveform)


def read(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_the_plain_loop_gives_the_rows_of_the_pipeline(toy_bundle: Bundle, audio, tmp_path):
    recordings = [recording for recording in find_recordings([audio]) if "broken" not in recording.name]
    with closing(open_engine(toy_bundle, "onnxruntime", 1)) as engine:
        scorer = Counting(toy_bundle, engine)
        scorer.given = []
        plain_loop(recordings, scorer, tmp_path / "plain.parquet", 2)
        assert scorer.given == [2, 2, 1]
        run_pipeline(recordings, scorer, tmp_path / "pipeline.parquet", batch=2, workers=1)
    plain, pipeline = read(tmp_path / "plain.parquet"), read(tmp_path / "pipeline.parquet")
    assert [row["file"] for row in plain] == [row["file"] for row in pipeline] == [f"{n}.wav" for n in range(5)]
    assert [row["label"] for row in plain] == [row["label"] for row in pipeline]
    assert len({row["label"] for row in plain}) > 1
    for name in ("score", *(f"p_{label}" for label in toy_bundle.labels)):
        assert [row[name] for row in plain] == pytest.approx([row[name] for row in pipeline], abs=1e-6)


def test_a_plain_loop_ends_at_a_file_that_cannot_be_read(toy_bundle, audio, tmp_path):
    with closing(open_engine(toy_bundle, "onnxruntime", 1)) as engine, pytest.raises(AudioError):
        plain_loop(list(find_recordings([audio])), Scorer(toy_bundle, engine), tmp_path / "a.parquet", 2)


def test_labels_that_differ_are_counted_and_missing_ones_are_not(tmp_path):
    import pyarrow as pa

    one = {"file": ["a", "b", "c"], "label": ["sad", "calm", None]}
    pq.write_table(pa.table(one), tmp_path / "one.parquet")
    pq.write_table(pa.table({**one, "label": ["sad", "happy", "sad"]}), tmp_path / "other.parquet")
    assert differing(tmp_path / "one.parquet", tmp_path / "other.parquet") == 1
    assert differing(tmp_path / "one.parquet", tmp_path / "one.parquet") == 0


def test_formats_and_their_two_passes_take_turns_and_warm_up_does_not_count(toy_bundle, audio, monkeypatch):
    # A clock of its own, on which a pass over n files takes: pipeline n s, plain loop 2 n s, and in warm-up 100 s more.
    now, calls = [0.0], []

    def passing(way: str, seconds: float, real):
        def call(recordings, *arguments, **options):
            calls.append(("ab"[len(recordings) - 1], way))
            now[0] += seconds * len(recordings) + (100 if len(calls) <= 4 else 0)
            return real(recordings, *arguments, **options)

        return call

    monkeypatch.setattr(formats, "run_pipeline", passing("pipeline", 1, formats.run_pipeline))
    monkeypatch.setattr(formats, "plain_loop", passing("plain", 2, formats.plain_loop))
    recordings = list(find_recordings([audio]))[:2]
    with closing(open_engine(toy_bundle, "onnxruntime", 1)) as engine:
        archives = {"a": recordings[:1], "b": recordings}
        found = measure_formats(toy_bundle, engine, archives, workers=1, batch=2, repeats=2, clock=lambda: now[0])
    there, back = ("pipeline", "plain"), ("plain", "pipeline")
    turns = [("a", there), ("b", there), ("b", back), ("a", back), ("a", there), ("b", there)]
    assert calls == [(name, way) for name, ways in turns for way in ways]
    assert [(f.format, f.files, f.seconds.raw, f.plain_seconds.raw) for f in found] == [
        ("a", 1, (1, 1), (2, 2)),
        ("b", 2, (2, 2), (4, 4)),
    ]
    assert [(f.files_per_second, f.plain_files_per_second, f.speedup) for f in found] == [(1, 0.5, 2)] * 2
    assert found[0].bytes_per_file == Path(recordings[0].path).stat().st_size


def test_the_command_leaves_out_what_cannot_be_written_and_its_result_compares(
    toy_bundle, audio, tmp_path, monkeypatch, capsys
):
    # One of each container family; tests/bench/test_archive.py writes and reads them all.
    chosen = ("FLAC 48 kHz 16 bit", "MP3 48 kHz", "Ogg Opus 48 kHz", "M4A AAC 48 kHz", "WMA 44.1 kHz")
    few = tuple(each for each in FORMATS if each.name in chosen)
    monkeypatch.setattr(archive, "FORMATS", few)
    writes = soundfile.check_format
    monkeypatch.setattr(soundfile, "check_format", lambda kind, coding=None: kind != "MP3" and writes(kind, coding))
    assert len(check_formats()[0]) == len(few) - 1 == 4
    arguments = ["formats", str(audio), "--bundle", str(toy_bundle.root), "--threads", "1", "--workers", "1"]
    arguments += ["--files", "9", "--batch-size", "2", "--repeats", "1", "--json", str(tmp_path / "f.json")]
    assert main(arguments) == 0
    result = results.read(tmp_path / "f.json")
    assert list(result["absent"]) == ["MP3 48 kHz"]
    found = result["measurements"]
    assert [row["format"] for row in found] == [each.name for each in few if each.name != "MP3 48 kHz"]
    assert all((row["files"], row["differing"], row["unscored"]) == (5, 0, 0) for row in found)
    # The scored part of five tones of 1 to 2 s, whatever the format.
    assert all(row["audio_hours"] == pytest.approx(7.5 / 3600, rel=0.05) for row in found)
    assert all(row["decode_cpu_seconds"] > 0 and row["seconds"]["n"] == 1 for row in found)
    decoders = {row["format"].split()[0]: row["decoder"] for row in found}
    assert decoders == {"FLAC": "libsndfile", "Ogg": "libsndfile", "M4A": "ffmpeg", "WMA": "ffmpeg"}
    assert all(row["ffmpeg_cpu_seconds"] > 0 for row in found)
    (table,) = tables(result)
    assert all(len(row) == len(table.columns) for row in table.rows) and "FLAC 48 kHz 16 bit" in capsys.readouterr().out
    assert any("MP3 48 kHz" in line for line in warnings_of(result))
    assert [ratio.ratio for ratio in compare(result, result).ratios] == [1.0] * 4
