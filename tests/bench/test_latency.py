from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.latency import Budget, closed_loop, make_plan, measure, repeat
from bench.load import FIXED, OFFLINE, measure_fixed_rate, measure_offline
from bench.peak import Peak
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines import open_engine
from ser_batch.errors import InputError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording

QUICK = Budget(warmup=1, iterations=4, seconds=60)
PEAKS = [
    Peak("numpy", "fp32", "cpu", 8, 1e9),
    Peak("torch", "fp32", "cpu", 8, 2e9),
    Peak("torch", "bf16", "cpu", 8, 9e9),
]


@pytest.fixture(scope="module")
def recordings(noises: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Three noises and a broken file."""
    bad = tmp_path_factory.mktemp("audio") / "bad.wav"
    bad.write_bytes(b"no audio")
    return [*find_recordings([noises]), *find_recordings([bad])]


class FakeEngine:
    """Each run takes a second of the fake clock, and the engine reports how."""

    name, precision, device = "fake", "fp32", "cuda"

    def __init__(self) -> None:
        self.now = 0.0
        self.batches: list[int] = []

    def clock(self) -> float:
        return self.now

    def run(self, waveform):
        self.batches.append(len(waveform))
        self.now += 1.0
        return {"only": np.full((len(waveform), 2), 0.5, dtype=np.float32)}

    def timings(self):
        return {"host_to_device": 0.3, "enqueue": 0.1, "compute": 0.6, "device_to_host": 0.1}

    def close(self) -> None: ...


def test_stages_are_those_that_an_engine_reports():
    engine = FakeEngine()
    stages = closed_loop(engine, None, np.zeros((3, 8), np.float32), 2, QUICK, clock=engine.clock)
    assert {name: series.median for name, series in stages.items()} == {"total": 1.0, **engine.timings()}
    assert engine.batches == [2] * 5
    assert all(series.n == 4 for series in stages.values())


def test_without_timings_the_run_is_the_computation(toy_bundle: Bundle):
    engine = open_engine(toy_bundle, "onnxruntime", 1)
    clips = np.zeros((1, toy_bundle.manifest.clip.samples), np.float32)
    stages = closed_loop(engine, toy_bundle.fusion, clips, 2, QUICK)
    engine.close()
    assert set(stages) == {"total", "compute", "fusion"}
    parts = np.add(stages["compute"].raw, stages["fusion"].raw)
    assert parts == pytest.approx(stages["total"].raw)


def test_time_ends_a_series_but_not_before_a_few():
    turns: list[int] = []
    repeat(lambda turn: turns.append(turn) or 5.0, Budget(warmup=0, iterations=50, seconds=12), turns.clear)
    assert turns == [0, 1, 2]
    turns.clear()
    repeat(lambda turn: turns.append(turn) or 100.0, Budget(warmup=2, iterations=50, seconds=1), turns.clear)
    assert turns == [0, 1, 2]


def test_every_backend_target_and_batch_is_measured(toy_bundle, recordings):
    asked = make_plan(toy_bundle, recordings, ("onnxruntime",), batch_sizes=(1, 4), threads=1, budget=QUICK)
    found = list(measure(asked, PEAKS))
    assert [(m.target, m.batch) for m in found] == [(t, b) for t in ("wav2vec2", "spectrogram", FUSED) for b in (1, 4)]
    for m in found:
        assert m.clips_per_second == pytest.approx(m.batch / m.stages["total"].median)
        assert m.real_time_factor == pytest.approx(3 * m.clips_per_second)
        assert ("fusion" in m.stages) == ("from_file" in m.stages) == (m.target == FUSED)
        assert m.flops_per_clip == (256 if m.target == FUSED else 128)
        assert m.peak_share == pytest.approx(m.flops_per_clip * m.batch / m.stages["compute"].median / 2e9)
        assert m.warmup == 1 and m.peak_rss > 1e6 and m.device_memory is None


def test_a_peak_of_another_precision_gives_no_share(toy_bundle, recordings):
    asked = make_plan(toy_bundle, recordings, ("onnxruntime",), targets=("wav2vec2",), batch_sizes=(1,), budget=QUICK)
    (found,) = measure(asked, [Peak("torch", "bf16", "cpu", 8, 9e9)])
    assert found.peak_share is None and found.flops_per_clip == 128


def test_other_loads_are_measurements_too(toy_bundle, recordings):
    asked = make_plan(
        toy_bundle, recordings, ("onnxruntime",), targets=(FUSED,), batch_sizes=(2,), threads=1, budget=QUICK
    )
    (fixed,) = measure_fixed_rate(asked, rate=200.0, clips=12)
    assert fixed.mode == FIXED and fixed.stages["queueing"].n == fixed.stages["total"].n == 12
    assert fixed.details["rate"] == 200.0 and fixed.clips_per_second == fixed.details["achieved"]
    (offline,) = measure_offline(asked, PEAKS, clips=7)
    assert offline.mode == OFFLINE and offline.details == {"clips": 7}
    assert offline.clips_per_second == pytest.approx(7 / offline.stages["whole"].median)
    with pytest.raises(InputError, match="fixed rate must be positive"):
        list(measure_fixed_rate(asked, rate=0.0, clips=1))


def test_requests_that_cannot_be_met_are_refused_before_anything_runs(toy_bundle, recordings):
    with pytest.raises(InputError, match="no branch 'prosody'"):
        make_plan(toy_bundle, recordings, ("onnxruntime",), targets=("prosody",))
    bad = [recording for recording in recordings if recording.name == "bad.wav"]
    with pytest.raises(InputError, match="no clips to measure with"):
        make_plan(toy_bundle, bad, ("onnxruntime",))
