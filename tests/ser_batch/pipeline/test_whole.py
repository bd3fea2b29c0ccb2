"""Long recordings are scored whole: windows over them, and one row."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import InputError
from ser_batch.pipeline.config import RunConfig
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings
from support.commands import run
from support.encoded import encode
from support.recordings import sound, write
from support.runs import score


@pytest.fixture(scope="module")
def scorer(toy_bundle: Bundle) -> Scorer:
    return Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    return folder


def rows(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path).to_pylist()


def weighted(windows: list[dict[str, object]], name: str) -> float:
    scored = [row for row in windows if row["status"] == "ok"]
    seconds = [row["end"] - row["start"] for row in scored]
    return float(np.average([row[name] for row in scored], weights=seconds))


def test_a_long_recording_is_the_mean_of_its_windows_by_their_seconds(
    audio: Path, tmp_path: Path, scorer: Scorer
) -> None:
    voice = sound(16.4, 16_000)
    voice[6 * 16_000 : 12 * 16_000] *= 1e-4  # two windows of a pause
    voice[12 * 16_000 :] *= 3
    soundfile.write(audio / "b-long.wav", voice, 16_000)
    encode(audio / "c-phone.m4a", "m4a", 10.0)
    for name, seconds in (("a", 2.0), ("d", 6.0), ("e", 6.1), ("f", 0.5)):
        write(audio / f"{name}.flac", seconds, kind="flac", rate=16_000)
    listed = find_recordings([audio])
    for name, options in {"first": {"clip": "first"}, "windows": {"window": 3.0}, "whole": {}}.items():
        score(listed, scorer, tmp_path / f"{name}.parquet", batch_size=7, **options)
    whole, first = (rows(tmp_path / f"{name}.parquet") for name in ("whole", "first"))
    windows = rows(tmp_path / "windows.parquet")
    assert [row["file"] for row in whole] == [recording.name for recording in listed]
    assert [row["segments"] for row in whole] == [1, 4, 4, 1, 3, 1]
    for row, clip in zip(whole, first, strict=True):
        own = [each for each in windows if each["file"] == row["file"]]
        assert (row["status"], row["duration"], row["decoder"]) == ("ok", clip["duration"], clip["decoder"])
        if row["segments"] == 1:
            assert {name: row[name] for name in clip} == clip
            continue
        for name in row:
            if "p_" in name:
                assert row[name] == pytest.approx(weighted(own, name), abs=1e-6)
        labels = scorer.bundle.labels
        assert row["label"] == max(labels, key=lambda label: row[f"p_{label}"])
        assert row["score"] == row[f"p_{row['label']}"]
        assert (row["start"], row["end"]) == (0.0, own[-1]["end"])
        assert row["clipped"] == pytest.approx(weighted(own, "clipped"), abs=1e-6)
        assert row["bandwidth"] == max(each["bandwidth"] for each in own if each["status"] == "ok")
    assert sum(row["p_sad"] != clip["p_sad"] for row, clip in zip(whole, first, strict=True)) == 3
    power = 10 ** (whole[1]["level"] / 10) * 10.4
    spoken = [row for row in windows if row["file"] == "b-long.wav" and row["status"] == "ok"]
    assert power == pytest.approx(
        sum(10 ** (row["level"] / 10) * (row["end"] - row["start"]) for row in spoken), rel=0.01
    )
    for batch_size in (1, 64):  # windows of a recording are in several batches, or those of all in one
        score(listed, scorer, tmp_path / f"by{batch_size}.parquet", batch_size=batch_size)
        for row, other in zip(whole, rows(tmp_path / f"by{batch_size}.parquet"), strict=True):
            assert row == {name: pytest.approx(v, abs=1e-6) if isinstance(v, float) else v for name, v in other.items()}


def test_speech_that_begins_late_is_what_counts(audio: Path, tmp_path: Path, scorer: Scorer) -> None:
    voice = np.concatenate([sound(9.0, 16_000, seed=3) * 1e-4, sound(3.0, 16_000)])
    soundfile.write(audio / "late.wav", voice, 16_000)
    soundfile.write(audio / "alone.wav", voice[9 * 16_000 :], 16_000)
    score(find_recordings([audio]), scorer, tmp_path / "o.parquet")
    alone, late = rows(tmp_path / "o.parquet")
    assert (late["start"], late["end"], late["duration"], late["segments"]) == (9.0, 12.0, 12.0, 1)
    assert late["p_sad"] == pytest.approx(alone["p_sad"], abs=1e-3)


def test_what_is_silent_or_short_throughout_has_no_label(audio: Path, tmp_path: Path, scorer: Scorer) -> None:
    soundfile.write(audio / "noise.wav", sound(10.0, 16_000) * 1e-4 + 0.01, 16_000)
    soundfile.write(audio / "zeros.wav", np.zeros(160_000), 16_000)
    score(find_recordings([audio]), scorer, tmp_path / "o.parquet")
    noise, zeros = rows(tmp_path / "o.parquet")
    assert [(row["status"], row["label"], row["segments"]) for row in (noise, zeros)] == [("silent", None, 0)] * 2
    assert (noise["start"], noise["end"]) == (0.0, 10.0)
    assert -120 < noise["level"] < -80 and zeros["level"] == -math.inf and zeros["bandwidth"] is None
    score(find_recordings([audio]), scorer, tmp_path / "all.parquet", silence=-110)
    assert [row["status"] for row in rows(tmp_path / "all.parquet")] == ["ok", "silent"]


def test_damage_anywhere_is_the_row_of_the_recording(audio: Path, tmp_path: Path, scorer: Scorer) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        write(audio / name, 12.0, rate=16_000)
    (audio / "b.wav").write_bytes((audio / "b.wav").read_bytes()[:-100_000])
    summary = score(find_recordings([audio]), scorer, tmp_path / "o.parquet", batch_size=2)
    found = rows(tmp_path / "o.parquet")
    assert [row["status"] for row in found] == ["ok", "error", "ok"]
    assert "is truncated" in str(found[1]["error"]) and found[1]["segments"] is None and found[1]["p_sad"] is None
    assert found[0]["p_sad"] == found[2]["p_sad"]
    assert (summary.rows, summary.failures, summary.clips) == (3, 1, 2)


def test_each_channel_has_a_whole_of_its_own(audio: Path, tmp_path: Path, scorer: Scorer) -> None:
    voices = sound(12.0, 16_000, 2)
    voices[: 6 * 16_000, 1] = 0
    soundfile.write(audio / "call.wav", voices, 16_000)
    for channel in (0, 1):
        soundfile.write(tmp_path / f"{channel + 1}.wav", voices[:, channel], 16_000)
    score(find_recordings([audio]), scorer, tmp_path / "o.parquet", channels="split")
    both = rows(tmp_path / "o.parquet")
    assert [(row["channel"], row["segments"], row["start"]) for row in both] == [(1, 4, 0.0), (2, 2, 6.0)]
    for row in both:
        alone = tmp_path / f"{row['channel']}.parquet"
        score([Recording(f"{tmp_path}/{row['channel']}.wav", "x")], scorer, alone)
        assert row["p_sad"] == pytest.approx(rows(alone)[0]["p_sad"], abs=1e-6)


def test_a_stretch_is_long_by_its_own_length(audio: Path, tmp_path: Path, scorer: Scorer) -> None:
    path = write(audio / "x.wav", 30.0, rate=16_000)
    spans = [(0.0, 4.0), (2.0, 20.0), (10.0, math.inf)]
    listed = Recordings.of([Recording(str(path), str(span), span=span) for span in spans])
    score(listed, scorer, tmp_path / "o.parquet")
    found = rows(tmp_path / "o.parquet")
    assert [(row["start"], row["end"], row["segments"]) for row in found] == [(0.5, 3.5, 1), (2, 20, 6), (10, 30, 7)]


def test_a_clip_is_asked_for_by_its_name(tmp_path: Path) -> None:
    for options in ({"clip": "last"}, {"clip": "first", "window": 3.0}):
        with pytest.raises(InputError, match="no such clip"):
            RunConfig((), tmp_path, **options)


def test_an_output_is_gone_on_with_as_it_was_made(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    write(audio / "a.wav", 9.0, rate=16_000)
    given = (audio, "--bundle", toy_bundle.root, "--quiet", "--out")
    for out, clip in (("first", ["--clip", "first"]), ("whole", [])):
        assert run(*given, tmp_path / f"{out}.parquet", *clip) == 0
        write(audio / "b.wav", 9.0, rate=16_000)
        assert run(*given, tmp_path / f"{out}.parquet", "--resume") == 0
        found = rows(tmp_path / f"{out}.parquet")
        assert [row.get("segments") for row in found] == ([None, None] if out == "first" else [3, 3])
        assert found[0]["p_sad"] == found[1]["p_sad"]
        other = "whole" if out == "first" else "first"
        assert run(*given, tmp_path / f"{out}.parquet", "--resume", "--clip", other) == 2
        (audio / "b.wav").unlink()


def test_a_row_per_recording_needs_no_aggregation(audio: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    write(audio / "a.wav", 9.0, rate=16_000)
    (audio / "b.wav").write_bytes(b"no audio")
    given = (audio, "--bundle", toy_bundle.root, "--quiet", "--out", tmp_path / "o.parquet")
    assert run(*given, "--aggregate", tmp_path / "a.parquet") == 3
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "o.parquet")


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, scorer: Scorer) -> None:
    peaks = []
    for minutes in (1, 4):
        path = write(tmp_path / f"{minutes}.wav", 60.0 * minutes, rate=16_000)
        tracemalloc.start()
        score([Recording(str(path), "x")], scorer, tmp_path / f"{minutes}.parquet", batch_size=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows(tmp_path / f"{minutes}.parquet")[0]["segments"] == 20 * minutes
    assert peaks[1] < 1.2 * peaks[0]
