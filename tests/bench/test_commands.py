from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench import results
from bench.cli import main
from ser_batch.bundle.bundle import Bundle

ROOT = Path(__file__).parents[2]


def test_latency_writes_json_and_parquet(toy_bundle: Bundle, noises, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.peak.measure_peaks", lambda *_: [])
    arguments = ["latency", str(noises), "--bundle", str(toy_bundle.root), "--backend", "onnxruntime:fp32"]
    arguments += ["--batch-size", "1", "--batch-size", "2", "--iterations", "3", "--warmup", "1", "--threads", "1"]
    outputs = ["--json", str(tmp_path / "a.json"), "--parquet", str(tmp_path / "a.parquet")]
    assert main([*arguments, *outputs, "--rate", "500", "--offline", "4"]) == 0
    found = results.read(tmp_path / "a.json")["measurements"]
    assert len(found) == 3 * 2 * 3 and (tmp_path / "a.parquet").is_file()
    assert {m["mode"] for m in found} == {"closed loop", "fixed rate", "offline"}
    shown = capsys.readouterr()
    assert "Latency, ms per batch" in shown.out and "6 of 6" not in shown.out
    for mode in ("closed loop", "fixed rate", "offline"):
        assert f"{mode} 6 of 6: fused, onnxruntime fp32, batch 2: " in shown.err


def test_latency_without_audio_times_the_reference_clips_and_says_so(toy_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.peak.measure_peaks", lambda *_: [])
    arguments = ["--backend", "onnxruntime:fp32", "--target", "fused", "--iterations", "3", "--warmup", "1"]
    out = tmp_path / "a.json"
    assert main(["latency", "--bundle", str(toy_bundle.root), "--json", str(out), *arguments]) == 0
    said = f"no AUDIO given: the 8 reference clips of {toy_bundle.id}, synthetic, no files decoded"
    found = results.read(out)
    assert found["clips"] == said and f"Latency, ms per batch: {said}" in capsys.readouterr().out
    assert [m["batch"] for m in found["measurements"]] == [1, 2, 4, 8, 16]
    assert all("from_file" not in m["stages"] for m in found["measurements"])


def test_precisions_take_turns(toy_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.precisions.measure_peaks", lambda *_: [])
    out, backends = tmp_path / "p.json", ["--backend", "onnxruntime:fp32", "--backend", "openvino:fp32"]
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert main(["precisions", "--bundle", str(toy_bundle.root), "--rounds", "2", "--json", str(out), *backends]) == 0
    found = results.read(out)["candidates"]
    assert [(c["label"], c["batch"], c["seconds"]["n"]) for c in found] == [
        ("onnxruntime fp32", 8, 2),
        ("openvino fp32", 8, 2),
    ]
    assert found[0]["speedup"] == 1 and found[1]["max_difference"] < 1e-5
    assert "× onnxruntime fp32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "{noises}", "--backend", "warp"], "no backend 'warp'"),
        (["latency", "{noises}", "--backend", "onnxruntime:fp4"], "no precision 'fp4'"),
        (["latency", "{noises}", "--batch-size", "0"], "'--batch-size': 0 is not in the range x>=1"),
        (["latency", "{noises}", "--rate", "0"], "'--rate': 0.0 is not above 0"),
        (["latency", "{noises}", "--rate", "nan"], "'--rate': nan is not above 0"),
        (["latency", "{noises}", "--seconds", "-1"], "'--seconds': -1.0 is not above 0"),
        (["latency", "{noises}", "--offline", "0"], "'--offline': 0 is not in the range x>=1"),
        (["latency", "{noises}", "--threads", "0"], "'--threads': 0 is not in the range x>=1"),
        (["latency", "{noises}/absent"], "does not exist"),
        (["latency", "{empty}"], "no audio found"),
        (["throughput", "{noises}", "--workers", "0"], "'--workers': 0 is not in the range x>=1"),
        (["throughput", "{noises}", "--threads", "0"], "'--threads': 0 is not in the range x>=1"),
        (["throughput", "{noises}", "--backend", "warp"], "no backend 'warp'"),
        (["throughput", "{empty}"], "no audio found"),
        (["formats", "{noises}", "--files", "0"], "'--files': 0 is not in the range x>=1"),
        (["formats", "{noises}", "--workers", "0"], "'--workers': 0 is not in the range x>=1"),
        (["formats", "{noises}", "--backend", "warp"], "no backend 'warp'"),
        (["formats", "{empty}"], "no audio found"),
        (["resume", "{noises}", "--files", "5", "--files", "0"], "'--files': 0 is not in the range x>=1"),
        (["resume", "{noises}", "--repeats", "0"], "'--repeats': 0 is not in the range x>=1"),
        (["resume", "{noises}", "--backend", "onnxruntime:fp4"], "no precision 'fp4'"),
        (["resume", "{empty}"], "no audio found"),
        (["startup", "{empty}"], "is not a file"),
        (["training", "--size", "vast"], "no model of that size"),
        (["training", "--size", "small", "--clips", "1"], "needs clips for a batch"),
        (["peers", "--size", "small", "--backend", "warp"], "no backend 'warp'"),
        (["end-to-end", "{noises}", "--size", "vast"], "no model of that size"),
        (["end-to-end", "{noises}", "--backend", "warp"], "no backend 'warp'"),
        (["end-to-end", "{noises}", "--files", "0"], "'--files': 0 is not in the range x>=1"),
        (["end-to-end", "{noises}", "--repeats", "0"], "'--repeats': 0 is not in the range x>=1"),
        (["end-to-end", "{noises}", "--run", "{empty}"], "{empty}"),
        (["end-to-end", "{empty}"], "no audio found"),
        (["peers", "--size", "small", "--threads", "0"], "'--threads': 0 is not in the range x>=1"),
        (["peers", "--size", "small", "--optimum", "{empty}/absent"], "cannot be run"),
        (["smoke", "--backend", "warp"], "no backend 'warp'"),
        (["report", "{empty}"], "nothing to write"),
        (["report", "{empty}", "--docs", "{empty}/page.md"], "no results to show"),
        (["compare", "{empty}/a.json", "{empty}/b.json"], "cannot be read"),
    ],
)
def test_requests_that_cannot_be_met_are_refused_before_anything_runs(
    arguments, message, noises, tmp_path, toy_bundle, capsys, monkeypatch
):
    def warmed_up(*_: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("bench.backends.open_engine", warmed_up)
    filled = [argument.format(noises=noises, empty=tmp_path) for argument in arguments]
    bundle = (
        ["--bundle", str(toy_bundle.root)] if arguments[0] in ("latency", "throughput", "formats", "resume") else []
    )
    assert main([*filled, *bundle]) == 2
    assert message.format(empty=tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["peers", "training"])
def test_a_missing_gpu_is_reported_before_warm_up(command, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("bench.backends.open_engine", None)
    assert main([command, "--size", "small", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_a_precision_that_was_asked_for_and_has_no_graphs_is_an_error(toy_bundle, noises, capsys):
    arguments = ["latency", str(noises), "--bundle", str(toy_bundle.root), "--backend", "onnxruntime:int8"]
    assert main(arguments) == 2
    assert "has no int8 graph" in capsys.readouterr().err


def test_nothing_is_written_unless_a_file_is_named(toy_bundle, noises, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.peak.measure_peaks", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "bench").rglob("*") if "__pycache__" not in path.parts}
    arguments = ["latency", str(noises), "--bundle", str(toy_bundle.root), "--backend", "onnxruntime:fp32"]
    assert main([*arguments, "--target", "fused", "--batch-size", "1", "--iterations", "1", "--warmup", "1"]) == 0
    after = {path: path.stat().st_mtime_ns for path in (ROOT / "bench").rglob("*") if "__pycache__" not in path.parts}
    assert after == before and not list(tmp_path.iterdir())


def test_help_needs_neither_torch_nor_an_engine():
    code = "import sys; from bench.cli import main; main(['latency', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Usage: " in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert "click" in loaded and not {"torch", "transformers", "onnxruntime", "numpy", "rich"} & set(loaded)


def test_torch_and_training_are_imported_at_once_by_the_peers_alone():
    heavy = {"torch", "transformers", "optimum", "training", "export"}
    for path in (ROOT / "bench").glob("*.py"):
        imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
        assert not {name.partition(".")[0] for name in names} & heavy, path
        assert not {name for name in names if name.startswith("bench.peers")}, path
