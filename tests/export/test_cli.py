from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.api import extend_with
from export.cli import main
from ser_batch.bundle.bundle import Bundle
from ser_batch.command_line import USAGE
from ser_batch.verification.compare import candidates


def test_onnx_makes_a_bundle_that_verifies(
    exported_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert main(["verify", str(exported_bundle.root), "--json", str(report)]) == 0
    shown, found = capsys.readouterr().out, json.loads(report.read_text())
    assert exported_bundle.id in shown and shown.rstrip().endswith("passed")
    assert found["passed"] and found["bundle"] == exported_bundle.id
    assert [c["output"] for c in found["comparisons"]][:3] == ["wav2vec2", "spectrogram", "fused"]
    for comparison in found["comparisons"]:
        assert comparison["output"] in shown and f"{comparison['max_difference']:.1e}" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "{tmp}/absent", "--out", "{tmp}/bundle"], "is not a finished run"),
        (["onnx", "{run}", "--out", "{tmp}"], "exists already"),
        (["onnx", "{run}"], "Missing option '--out'"),
        (["translate"], "No such command"),
    ],
)
def test_what_cannot_be_begun_exits_2_with_one_clear_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    toy_run: Path,
    toy_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.format(tmp=tmp_path, run=toy_run, bundle=toy_bundle.root) for a in arguments]
    assert main(filled) == USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_what_comes_last_is_checked_first(
    tmp_path: Path, toy_run: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, out = tmp_path / "silent", tmp_path / "bundle"
    silent.mkdir()
    int8 = ["--precision", "int8", "--calibration", str(silent)]
    assert main(["onnx", str(toy_run), "--out", str(out), *int8]) == USAGE and not out.exists()
    assert "no audio" in capsys.readouterr().err
    assert main(["verify", str(toy_bundle.root), "--json", str(tmp_path / "absent" / "r.json")]) == USAGE
    shown = capsys.readouterr()
    assert "no folder" in shown.err and not shown.out


def test_onnx_without_torch_says_what_to_install(
    tmp_path: Path, toy_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    assert main(["onnx", str(toy_run), "--out", str(tmp_path / "bundle")]) == USAGE
    assert "got no torch" in (error := capsys.readouterr().err) and "ser-batch[export,cpu]" in error


def test_help_imports_nothing_heavy() -> None:
    blocked = ("torch", "onnx", "onnxruntime", "numpy", "rich", "training")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from export.cli import main; main(sys.argv[1:])"
    for command in ("onnx", "quantize", "trt"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=True
        )
        assert "Exit codes" in done.stdout


def test_torch_is_compared_where_its_run_is_given(exported_bundle: Bundle, toy_run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--backend", "onnxruntime", "--threads", "1", "--run", str(toy_run), "--json", str(report)]
    assert main(["verify", str(exported_bundle.root), *arguments]) == 0
    found = json.loads(report.read_text())["comparisons"]
    outputs = ["wav2vec2", "spectrogram", "fused"]
    assert [(c["engine"], c["output"]) for c in found][:3] == [("torch", output) for output in outputs]
    assert all(c["max_difference"] < 1e-6 for c in found[:3])


def test_a_run_that_is_not_there_exits_2(
    toy_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(toy_bundle.root), "--run", str(tmp_path)]) == USAGE
    assert "is not a finished run" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_without_onnx_emulations_are_absent_and_say_what_to_install(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {"precisions/fp16/wav2vec2.onnx": "1", "precisions/fp16/spectrogram.onnx": "2"}
    monkeypatch.setattr("export.api.lower_graphs", lambda bundle, p: graphs if p == "fp16" else {})
    listed = candidates(toy_bundle, ["onnxruntime"])
    extended = extend_with(None, None, None)(toy_bundle, candidates(toy_bundle, ["onnxruntime"]))
    assert [c.key for c in extended.found] == [*(c.key for c in listed.found), ("emulated", "fp16")]
    assert extended.found[-1].graphs == graphs
    assert extend_with(None, ["onnxruntime"], None)(toy_bundle, listed).found == listed.found, "only what was asked for"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else object())
    absent = extend_with(None, None, None)(toy_bundle, candidates(toy_bundle, ["onnxruntime"])).absent
    assert "ser-batch[export" in absent["emulated fp16"]
