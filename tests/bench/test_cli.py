from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import results
from bench.backends import check_bundle
from bench.cli import main
from bench.interleave import interleave
from bench.processes import run_process
from bench.smoke import smoke_ratios
from bench.tables import tables
from bench.throughput import measure_memory, measure_throughput
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError, InputError
from ser_batch.recordings.sources import find_audio


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.3, 0.3, 24_000), 8_000)
    return folder


def test_latency_writes_json_and_parquet(toy_bundle: Bundle, audio, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.peak.measure_peaks", lambda *_: [])
    arguments = ["latency", str(audio), "--bundle", str(toy_bundle.root), "--backend", "onnxruntime:fp32"]
    arguments += ["--batch-size", "1", "--batch-size", "2", "--iterations", "3", "--warmup", "1", "--threads", "1"]
    outputs = ["--json", str(tmp_path / "a.json"), "--parquet", str(tmp_path / "a.parquet")]
    assert main([*arguments, *outputs, "--rate", "500", "--offline", "4"]) == 0
    found = results.read(tmp_path / "a.json")["measurements"]
    assert len(found) == 3 * 2 * 3 and (tmp_path / "a.parquet").is_file()
    assert {m["mode"] for m in found} == {"closed loop", "fixed rate", "offline"}
    assert "Latency, ms a batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "{audio}", "--backend", "warp"], "no backend 'warp'"),
        (["latency", "{audio}", "--backend", "onnxruntime:fp4"], "no precision 'fp4'"),
        (["latency", "{audio}", "--batch-size", "0"], "batch size must be at least 1"),
        (["latency", "{audio}", "--rate", "0"], "rate must be above 0"),
        (["latency", "{audio}", "--rate", "nan"], "rate must be above 0"),
        (["latency", "{audio}", "--seconds", "-1"], "seconds must be above 0"),
        (["latency", "{audio}", "--offline", "0"], "offline must be at least 1"),
        (["latency", "{audio}", "--threads", "0"], "threads must be at least 1"),
        (["latency", "{audio}/absent"], "does not exist"),
        (["latency", "{empty}"], "no audio found"),
        (["throughput", "{audio}", "--workers", "0"], "workers must be at least 1"),
        (["throughput", "{audio}", "--threads", "0"], "threads must be at least 1"),
        (["throughput", "{audio}", "--backend", "warp"], "no backend 'warp'"),
        (["throughput", "{empty}"], "no audio found"),
        (["formats", "{audio}", "--files", "0"], "files must be at least 1"),
        (["formats", "{audio}", "--workers", "0"], "workers must be at least 1"),
        (["formats", "{audio}", "--backend", "warp"], "no backend 'warp'"),
        (["formats", "{empty}"], "no audio found"),
        (["resume", "{audio}", "--files", "5", "--files", "0"], "files must be at least 1"),
        (["resume", "{audio}", "--repeats", "0"], "repeats must be at least 1"),
        (["resume", "{audio}", "--backend", "onnxruntime:fp4"], "no precision 'fp4'"),
        (["resume", "{empty}"], "no audio found"),
        (["startup", "{empty}"], "is no file"),
        (["training", "--size", "vast"], "no model of that size"),
        (["training", "--size", "small", "--clips", "1"], "needs clips for a batch"),
        (["peers", "--size", "small", "--backend", "warp"], "no backend 'warp'"),
        (["end-to-end", "{audio}", "--size", "vast"], "no model of that size"),
        (["end-to-end", "{audio}", "--backend", "warp"], "no backend 'warp'"),
        (["end-to-end", "{audio}", "--files", "0"], "files must be at least 1"),
        (["end-to-end", "{audio}", "--repeats", "0"], "repeats must be at least 1"),
        (["end-to-end", "{audio}", "--run", "{empty}"], "{empty}"),
        (["end-to-end", "{empty}"], "no audio found"),
        (["peers", "--size", "small", "--threads", "0"], "threads must be at least 1"),
        (["peers", "--size", "small", "--optimum", "{empty}/absent"], "cannot be run"),
        (["smoke", "--backend", "warp"], "no backend 'warp'"),
        (["report"], "nothing to write"),
        (["compare", "{empty}/a.json", "{empty}/b.json"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(
    arguments, message, audio, tmp_path, toy_bundle, capsys, monkeypatch
):
    def warmed_up(*_: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("bench.backends.open_engine", warmed_up)
    filled = [argument.format(audio=audio, empty=tmp_path) for argument in arguments]
    bundle = (
        ["--bundle", str(toy_bundle.root)] if arguments[0] in ("latency", "throughput", "formats", "resume") else []
    )
    assert main([*filled, *bundle]) == 2
    assert message.format(empty=tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["peers", "training"])
def test_a_gpu_that_is_not_there_is_said_before_warm_up(command, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("bench.backends.open_engine", None)
    assert main([command, "--size", "small", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_a_precision_that_the_bundle_has_no_graphs_for_is_left_out_unless_asked_for(toy_bundle, audio, capsys):
    both = ("onnxruntime:fp32", "onnxruntime:int8")
    fit, absent = check_bundle(toy_bundle, both, asked=())
    assert fit == ("onnxruntime:fp32",) and "has no int8 graph" in absent["onnxruntime:int8"]
    arguments = ["latency", str(audio), "--bundle", str(toy_bundle.root), "--backend", "onnxruntime:int8"]
    assert main(arguments) == 2
    assert "has no int8 graph" in capsys.readouterr().err


def test_throughput_stands_beside_the_engine_and_the_decoder(toy_bundle, audio):
    (found,) = measure_throughput(toy_bundle, find_audio([audio]), ["onnxruntime"], workers=[1], batch=2, repeats=2)
    assert (found.files, found.failures, found.seconds.n) == (3, 0, 2)
    assert found.files_per_second == pytest.approx(3 / found.seconds.median)
    assert found.engine_share == pytest.approx(found.files_per_second / found.engine_clips_per_second)
    assert found.startup_seconds < found.seconds.median and 0 <= found.finish_seconds < found.seconds.median
    assert found.steady_share == pytest.approx(found.steady_files_per_second / found.engine_clips_per_second)
    # The pipeline's processes do all that engine and decoder do alone, and start besides.
    assert found.cpu_seconds["pipeline"] > found.cpu_seconds["decode"] > 0 < found.cpu_seconds["engine"]
    assert found.bottleneck[0] in ("decode", "engine", "write")
    (table,) = tables(results.document("throughput", {}, measurements=[found]))
    assert len(table.rows[0]) == len(table.columns)
    assert found.audio_hours == pytest.approx(3 * 2.5 / 3600) or found.audio_hours == pytest.approx(3 * 3 / 3600)


def test_memory_is_that_of_a_run_of_its_own_on_so_many_files(toy_bundle, audio):
    (found,) = measure_memory(find_audio([audio]), [4], toy_bundle.root, "onnxruntime:fp32")
    assert found.files == 4 and found.seconds > 0 and found.peak_rss > 1e7
    with pytest.raises(InputError, match="at least 1"):
        next(measure_memory(find_audio([audio]), [4, 0], toy_bundle.root, "onnxruntime:fp32"))


def test_smoke_stands_engines_beside_each_other_torch_and_the_pipeline(toy_bundle):
    pytest.importorskip("torch")
    ratios = smoke_ratios(toy_bundle, ["onnxruntime:fp32"], files=3, rounds=1, size="small")
    assert [name.partition(",")[0] for name in ratios] == [
        "pipeline / bare engine",
        "engine's share of the pipeline's CPU time",
        "onnxruntime:fp32 / torch eager fp32",
    ]
    assert all(ratio > 0 for ratio in ratios.values())


def test_training_measures_every_branch(tmp_path, capsys):
    pytest.importorskip("torch")
    arguments = ["training", "--size", "small", "--clips", "4", "--epochs", "1", "--json", str(tmp_path / "t.json")]
    assert main(arguments) == 0
    found = results.read(tmp_path / "t.json")["branches"]
    assert [branch["branch"] for branch in found] == ["wav2vec2", "spectrogram"]
    assert all(b["seconds"]["n"] == 1 and 0 < b["trained"] <= b["parameters"] for b in found)
    assert "epoch of 1,147 clips, s" in capsys.readouterr().out


class Steady:
    """An engine whose runs take a known time on a clock of its own."""

    precision, device = "fp32", "cpu"

    def __init__(self, clock: list[float], seconds: float, value: float = 0.5) -> None:
        self.name, self.clock, self.seconds, self.value = "steady", clock, seconds, value

    def run(self, waveform):
        self.clock[0] += self.seconds
        return {"only": np.full((len(waveform), 2), self.value, np.float32)}

    def close(self) -> None: ...


def test_engines_take_turns_and_ratios_are_to_the_first():
    clock = [0.0]
    engines = {"slow": Steady(clock, 0.4), "fast": Steady(clock, 0.1)}
    found = interleave(
        engines, "only", np.zeros((2, 8), np.float32), 2, rounds=4, clock=lambda: clock[0], pause=lambda _: None
    )
    assert [(c.label, c.speedup, c.clips_per_second) for c in found] == [
        ("slow", pytest.approx(1), pytest.approx(5)),
        ("fast", pytest.approx(4), pytest.approx(20)),
    ]
    assert clock[0] == pytest.approx((1 + 2 + 4) * 0.5)


def test_an_engine_that_computes_something_else_is_no_peer():
    clock = [0.0]
    engines = {"one": Steady(clock, 1), "other": Steady(clock, 1, value=0.6)}
    with pytest.raises(EngineError, match="other does not compute what the others do"):
        interleave(engines, "only", np.zeros((1, 8), np.float32), 1)
    with pytest.raises(InputError):
        interleave({}, "only", np.zeros((1, 8), np.float32), 1)


def test_a_process_is_timed_and_its_failure_told():
    done = run_process([sys.executable, "-c", "pass"])
    assert done.seconds > 0 and done.peak_rss > 1e6
    with pytest.raises(EngineError, match="ended with 1; got boom"):
        run_process([sys.executable, "-c", "raise SystemExit('boom')"])
