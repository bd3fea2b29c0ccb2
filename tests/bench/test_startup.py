from __future__ import annotations

from pathlib import Path

from bench.startup import measure_startup
from ser_batch.bundle.bundle import Bundle
from support.recordings import write


def test_a_run_is_timed_beside_a_process_that_only_opens_the_same_graphs(toy_bundle: Bundle, tmp_path: Path) -> None:
    recording = write(tmp_path / "a.wav")
    nothing, usage, run, opened = measure_startup(recording, toy_bundle, "onnxruntime", repeats=1)
    assert (usage.command, run.command) == ("ser-batch --help", "ser-batch run a.wav --out preds.parquet")
    assert "opens the bundle's graphs" in opened.command
    assert [each.seconds.n for each in (nothing, usage, run, opened)] == [1, 1, 1, 1]
