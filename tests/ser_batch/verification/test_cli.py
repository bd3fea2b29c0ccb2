"""The command: what it prints, its exit codes, and what it does not import; `ser-export verify` is the same command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

import export.cli
import ser_batch.cli
from ser_batch.bundle import Bundle
from ser_batch.clips import ClipRule
from ser_batch.command_line import USAGE
from ser_batch.verification import compare
from ser_batch.verification.cli import FAILED
from support.toy import LABELS, make_toy_bundle, toy_graph, toy_weights

Main = Callable[[Sequence[str]], int]
CLIP = ClipRule(samples=24_000)
EITHER = pytest.mark.parametrize("main", [ser_batch.cli.main, export.cli.main], ids=["ser-batch", "ser-export"])


@EITHER
def test_it_passes_and_says_what_was_compared(
    main: Main, toy_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert main(["verify", str(toy_bundle.root), "--backend", "onnxruntime", "--json", str(report)]) == 0
    shown, found = capsys.readouterr().out, json.loads(report.read_text())
    assert toy_bundle.id in shown and shown.rstrip().endswith("passed")
    assert found["passed"] and found["bundle"] == toy_bundle.id
    assert found["tolerances"] == {"fp32": 1e-4, "fp16": 5e-2, "bf16": 5e-2, "int8": 2e-1}
    assert [c["output"] for c in found["comparisons"]] == ["wav2vec2", "spectrogram", "fused"]
    for comparison in found["comparisons"]:
        assert comparison["output"] in shown and f"{comparison['max_difference']:.1e}" in shown


@EITHER
def test_it_fails_with_1_and_says_why(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(arguments: dict[str, Any]) -> None:
        weights = 2 * toy_weights("wav2vec2", len(LABELS))
        onnx.save(toy_graph(weights, CLIP.samples, labels=LABELS), arguments["files"]["wav2vec2.onnx"])

    make_toy_bundle(tmp_path / "bundle", clip=CLIP, edit=wrong)
    assert main(["verify", str(tmp_path / "bundle"), "--json", str(tmp_path / "report.json")]) == FAILED
    shown = capsys.readouterr().out
    assert "FAILED  onnxruntime fp32, wav2vec2: max |Δp|" in shown and shown.rstrip().endswith("failed")
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False


@EITHER
def test_it_fails_where_nothing_can_be_compared(
    main: Main, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "available_backends", lambda: {"onnxruntime": "it is not installed"})
    assert main(["verify", str(toy_bundle.root)]) == FAILED
    assert "nothing was compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "{tmp}/absent"], "is not a bundle"),
        (["verify", "{bundle}", "--json", "{tmp}/no/such/folder.json"], "cannot be written"),
        (["verify", "{bundle}", "--threads", "0"], "--threads"),
    ],
)
@EITHER
def test_what_cannot_be_begun_exits_2_with_one_clear_message(
    main: Main,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    toy_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([a.format(tmp=tmp_path, bundle=toy_bundle.root) for a in arguments]) == USAGE
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out


def test_a_damaged_bundle_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=CLIP)
    with bundle.path("wav2vec2.onnx").open("ab") as file:
        file.write(b"\0")
    assert ser_batch.cli.main(["verify", str(bundle.root)]) == USAGE
    assert "sha256 differs" in capsys.readouterr().err


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
from {program}.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_without(blocked: set[str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.replace("{blocked}", repr(blocked)).replace("{program}", program)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("program", ["ser_batch", "export"])
def test_it_needs_neither_torch_nor_onnx(toy_bundle: Bundle, program: str) -> None:
    blocked = {"torch", "transformers", "torchaudio", "sklearn", "onnx", "onnxscript", "training"}
    done = run_without(blocked | ({"export"} - {program}), program, "verify", str(toy_bundle.root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("passed")


@pytest.mark.parametrize("program", ["ser_batch", "export"])
@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"]])
def test_help_imports_nothing_heavy(program: str, arguments: list[str]) -> None:
    blocked = {"torch", "onnx", "onnxruntime", "numpy", "pyarrow", "rich", "training"}
    done = run_without(blocked, program, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout
