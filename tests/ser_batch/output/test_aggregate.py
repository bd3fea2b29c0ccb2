from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.output.aggregate import aggregate
from ser_batch.output.destination import Output
from ser_batch.recordings.find import find_recordings
from support.recordings import sound, write
from support.runs import score


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> Path:
    """Segments of four recordings: speech with a pause, silence, one cut off, one too short."""
    root = tmp_path_factory.mktemp("segments")
    (root / "audio").mkdir()
    speech = sound(9, 16_000)
    speech[48_000:96_000] = 0
    soundfile.write(root / "audio" / "a.wav", speech, 16_000)
    soundfile.write(root / "audio" / "b.wav", np.zeros(96_000), 16_000)
    cut = write(root / "audio" / "c.wav", 8.0)
    cut.write_bytes(cut.read_bytes()[:-50_000])
    write(root / "audio" / "d.wav", 0.2)
    scorer = Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", threads=1))
    score(find_recordings([root / "audio"]), scorer, root / "o.parquet", window=3, min_duration=0.5, batch_size=2)
    return root / "o.parquet"


def test_a_segment_is_a_row(segments: Path) -> None:
    rows = pq.read_table(segments).to_pylist()
    assert [(row["file"], row["start"], row["status"]) for row in rows] == [
        ("a.wav", 0, "ok"),
        ("a.wav", 3, "silent"),
        ("a.wav", 6, "ok"),
        ("b.wav", 0, "silent"),
        ("b.wav", 3, "silent"),
        ("c.wav", 0, "ok"),
        ("c.wav", 3, "ok"),
        ("c.wav", 6, "ok"),
        ("c.wav", None, "error"),
        ("d.wav", 0, "short"),
    ]
    assert [row["label"] is not None for row in rows] == [row["status"] == "ok" for row in rows]


def test_a_recording_is_the_mean_of_its_scored_segments(segments: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    out = tmp_path / "files.parquet"
    aggregate([Output.parse(segments).file], "file", toy_bundle.labels, Output.parse(out).file)
    rows = {row["file"]: row for row in pq.read_table(out).to_pylist()}
    found = pq.read_table(segments).to_pylist()
    a = rows["a.wav"]
    for name in (name for name in found[0] if "p_" in name):
        assert a[name] == pytest.approx((found[0][name] + found[2][name]) / 2, abs=1e-6)
    best = max(toy_bundle.labels, key=lambda label: a[f"p_{label}"])
    assert (a["label"], a["score"]) == (best, a[f"p_{best}"])
    assert (a["start"], a["end"], a["duration"], a["segments"], a["status"]) == (0, 9, 9, 3, "ok")
    assert [rows[name]["status"] for name in ("b.wav", "c.wav", "d.wav")] == ["silent", "error", "short"]
    assert "truncated" in rows["c.wav"]["error"]
    assert rows["c.wav"]["label"] is None
    assert rows["c.wav"]["start"] == 0
    assert rows["b.wav"]["p_sad"] is None
