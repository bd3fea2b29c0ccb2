from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import export.candidates
import export.cli
from export.cli import FAILED, USAGE, main
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule
from support.toy import LABELS, make_toy_bundle, toy_graph, toy_weights


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


def test_verify_fails_with_1_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = ClipRule(samples=24_000)

    def wrong(arguments: dict[str, Any]) -> None:
        weights = 2 * toy_weights("wav2vec2", len(LABELS))
        onnx.save(toy_graph(weights, clip.samples, labels=LABELS), arguments["files"]["wav2vec2.onnx"])

    make_toy_bundle(tmp_path / "bundle", clip=clip, edit=wrong)
    assert main(["verify", str(tmp_path / "bundle"), "--json", str(tmp_path / "report.json")]) == FAILED
    shown = capsys.readouterr().out
    assert "FAILED  onnxruntime fp32, wav2vec2: max |Δp|" in shown and shown.rstrip().endswith("failed")
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False


def test_verify_fails_where_nothing_can_be_compared(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.candidates, "available_backends", lambda: {"onnxruntime": "it is not installed"})
    assert main(["verify", str(toy_bundle.root)]) == FAILED
    assert "nothing was compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "{tmp}/absent"], "is not a bundle"),
        (["onnx", "{tmp}/absent", "--out", "{tmp}/bundle"], "is not a finished run"),
        (["onnx", "{run}", "--out", "{tmp}"], "exists already"),
        (["verify", "{bundle}", "--json", "{tmp}/no/such/folder.json"], "cannot be written"),
        (["onnx", "{run}"], "Missing option '--out'"),
        (["verify", "{bundle}", "--threads", "0"], "--threads"),
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
    told = capsys.readouterr()
    assert "no folder" in told.err and not told.out


def test_a_damaged_bundle_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=ClipRule(samples=24_000))
    with bundle.path("wav2vec2.onnx").open("ab") as file:
        file.write(b"\0")
    assert main(["verify", str(bundle.root)]) == USAGE
    assert "sha256 differs" in capsys.readouterr().err


def test_onnx_without_torch_says_what_to_install(
    tmp_path: Path, toy_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    assert main(["onnx", str(toy_run), "--out", str(tmp_path / "bundle")]) == USAGE
    assert "got no torch" in (error := capsys.readouterr().err) and "ser-batch[export,cpu]" in error


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
from export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_without(blocked: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.replace("{blocked}", repr(blocked))
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_verify_needs_neither_torch_nor_onnx(toy_bundle: Bundle) -> None:
    blocked = {"torch", "transformers", "torchaudio", "sklearn", "onnx", "onnxscript", "training"}
    done = run_without(blocked, "verify", str(toy_bundle.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("passed")


@pytest.mark.parametrize("arguments", [["--help"], ["onnx", "--help"], ["verify", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = run_without({"torch", "onnx", "onnxruntime", "numpy", "rich", "training"}, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout
