from __future__ import annotations

import pytest

from bench import environment, results, smoke
from bench.cli import main
from bench.smoke import deltas, smoke_ratios


@pytest.mark.usefixtures("models_before")
def test_ratios_are_of_engines_to_each_other_to_torch_and_of_the_pipeline(toy_bundle):
    pytest.importorskip("torch")
    ratios = smoke_ratios(toy_bundle, ["onnxruntime:fp32"], files=3, rounds=1, size="small")
    assert [name.partition(",")[0] for name in ratios] == [
        "pipeline / bare engine",
        "engine's share of the pipeline's CPU time",
        "onnxruntime:fp32 / torch eager fp32",
    ]
    assert all(ratio > 0 for ratio in ratios.values())


def test_changes_are_from_the_committed_ratios():
    now = {"a": 1.1, "new": 2.0}
    assert deltas(now, {"a": 1.0, "gone": 3.0}) == [("a", 1.1, pytest.approx(0.1)), ("new", 2.0, None)]
    assert deltas(now, None) == [("a", 1.1, None), ("new", 2.0, None)]


def test_the_command_says_that_the_committed_ratios_are_of_another_machine(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(smoke, "smoke_ratios", lambda *_: {"a / b": 1.5})
    monkeypatch.setattr(smoke, "COMMITTED", tmp_path / "smoke.json")
    there = environment.describe()
    results.write(results.document("smoke", there, ratios={"a / b": 1.0}), tmp_path / "smoke.json")
    assert main(["smoke", "--backend", "onnxruntime:fp32"]) == 0
    shown = capsys.readouterr()
    assert "+50.0%" in shown.out and not shown.err
    there["cpu"]["model"] = "Another Processor"
    results.write(results.document("smoke", there, ratios={"a / b": 1.0}), tmp_path / "smoke.json")
    assert main(["smoke", "--backend", "onnxruntime:fp32"]) == 0
    assert "note: the committed ratios were measured on Another Processor" in capsys.readouterr().err
