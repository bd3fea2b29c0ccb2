from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.backends import check_backends, check_batch
from bench.latency import Budget, closed_loop, measure, plan, repeat
from bench.load import FIXED, OFFLINE
from bench.peak import Peak
from bench.served import measure_fixed_rate, measure_offline
from bench.targets import FUSED, branch_view, check_positive, read_clips, take, targets_of
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine
from ser_batch.errors import EngineError, InputError
from ser_batch.recordings.sources import Source, find_audio

QUICK = Budget(warmup=1, iterations=4, seconds=60)
PEAKS = [
    Peak("numpy", "fp32", "cpu", 8, 1e9),
    Peak("torch", "fp32", "cpu", 8, 2e9),
    Peak("torch", "bf16", "cpu", 8, 9e9),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.3, 0.3, 24_000), 8_000)
    (folder / "bad.wav").write_bytes(b"no audio")
    return find_audio([folder])


class FakeEngine:
    """Each run takes a second of the fake clock; it tells how its time was spent."""

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


def test_an_engine_that_tells_its_stages_is_believed():
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


def test_every_backend_target_and_batch_is_measured(toy_bundle, sources):
    asked = plan(toy_bundle, sources, ("onnxruntime",), batch_sizes=(1, 4), threads=1, budget=QUICK)
    found = list(measure(asked, PEAKS))
    assert [(m.target, m.batch) for m in found] == [(t, b) for t in ("wav2vec2", "spectrogram", FUSED) for b in (1, 4)]
    for m in found:
        assert m.clips_per_second == pytest.approx(m.batch / m.stages["total"].median)
        assert m.real_time_factor == pytest.approx(3 * m.clips_per_second)
        assert ("fusion" in m.stages) == ("from_file" in m.stages) == (m.target == FUSED)
        assert m.flops_per_clip == (256 if m.target == FUSED else 128)
        assert m.peak_share == pytest.approx(m.flops_per_clip * m.batch / m.stages["compute"].median / 2e9)
        assert m.warmup == 1 and m.peak_rss > 1e6 and m.device_memory is None


def test_a_peak_of_another_precision_gives_no_share(toy_bundle, sources):
    asked = plan(toy_bundle, sources, ("onnxruntime",), targets=("wav2vec2",), batch_sizes=(1,), budget=QUICK)
    (found,) = measure(asked, [Peak("torch", "bf16", "cpu", 8, 9e9)])
    assert found.peak_share is None and found.flops_per_clip == 128


def test_other_loads_are_measurements_too(toy_bundle, sources):
    asked = plan(toy_bundle, sources, ("onnxruntime",), targets=(FUSED,), batch_sizes=(2,), threads=1, budget=QUICK)
    (fixed,) = measure_fixed_rate(asked, rate=200.0, clips=12)
    assert fixed.mode == FIXED and fixed.stages["queueing"].n == fixed.stages["total"].n == 12
    assert fixed.details["rate"] == 200.0 and fixed.clips_per_second == fixed.details["achieved"]
    (offline,) = measure_offline(asked, PEAKS, clips=7)
    assert offline.mode == OFFLINE and offline.details == {"clips": 7}
    assert offline.clips_per_second == pytest.approx(7 / offline.stages["whole"].median)
    with pytest.raises(InputError, match="fixed rate must be positive"):
        list(measure_fixed_rate(asked, rate=0.0, clips=1))


def test_a_branch_alone_runs_alone(toy_bundle):
    engine = open_engine(branch_view(toy_bundle, "spectrogram"), "onnxruntime", 1)
    rows = engine.run(np.zeros((1, toy_bundle.manifest.clip.samples), np.float32))
    engine.close()
    assert list(rows) == ["spectrogram"]
    assert branch_view(toy_bundle, FUSED) is toy_bundle
    assert targets_of(toy_bundle) == ("wav2vec2", "spectrogram", FUSED)


def test_clips_go_round_and_bad_recordings_are_left(toy_bundle, sources):
    clips, readable = read_clips(sources, toy_bundle.manifest.clip, limit=10)
    assert clips.shape == (3, 144_000) and [source.file for source in readable] == ["0.wav", "1.wav", "2.wav"]
    assert np.array_equal(take(clips, 2, 1), clips[[2, 0]])
    assert take(clips, 5, 0).flags.c_contiguous


def test_requests_that_cannot_be_met_are_refused_before_anything_runs(toy_bundle, sources):
    with pytest.raises(EngineError, match="no backend 'warp'"):
        check_backends(("warp",))
    with pytest.raises(InputError, match="batch size must be at least 1; got"):
        check_positive(batch_size=(4, 0))
    with pytest.raises(InputError, match="no branch 'prosody'"):
        plan(toy_bundle, sources, ("onnxruntime",), targets=("prosody",))
    bad = [source for source in sources if source.file == "bad.wav"]
    with pytest.raises(InputError, match="no clips to measure with"):
        plan(toy_bundle, bad, ("onnxruntime",))
    fixed = FakeEngine()
    fixed.max_batch = 8  # type: ignore[attr-defined]
    check_batch(fixed, (1, 8))
    with pytest.raises(EngineError, match="batches of at most 8; got 16"):
        check_batch(fixed, (1, 16))


def test_a_backend_that_cannot_run_is_refused_or_noted(monkeypatch):
    monkeypatch.setattr("bench.backends.available_backends", lambda: {"here": None, "gpu": "there is no GPU"})
    monkeypatch.setattr("bench.backends.precisions", lambda _: {"fp32": None, "bf16": None, "fp8": "too old"})
    assert check_backends(()) == (("here:fp32", "here:bf16"), {"gpu": "there is no GPU", "here:fp8": "too old"})
    assert check_backends(("here:bf16",))[0] == ("here:bf16",)
    with pytest.raises(EngineError, match="no precision 'fp4'; expected fp32 or bf16 or fp8"):
        check_backends(("here:fp4",))
    with pytest.raises(EngineError, match="cannot run in fp8 here: too old"):
        check_backends(("here:fp8",))
    with pytest.raises(EngineError, match="backend gpu cannot run here: there is no GPU"):
        check_backends(("gpu",))
    monkeypatch.setattr("bench.backends.available_backends", lambda: {"gpu": "there is no GPU"})
    with pytest.raises(EngineError, match="no backend can run here"):
        check_backends(())


def test_this_folder_of_torch_is_the_only_one():
    root = Path(__file__).parents[2] / "bench"
    heavy = ("torch", "transformers", "optimum", "training", "export")
    for path in root.glob("*.py"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        imported = [
            line
            for line in lines
            if line.startswith(tuple(f"{kind} {name}" for kind in ("import", "from") for name in heavy))
        ]
        assert not imported, path
