"""`ser-train` on a table with its own three labels and split, and a backbone that is not wav2vec 2.0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.shared_data import COMMITTED  # noqa: E402
from support.toy_table import LABELS, write_table_corpus  # noqa: E402
from training.cli import main  # noqa: E402
from training.reproduction.results import load  # noqa: E402
from training.runs import load_run  # noqa: E402


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A table of recordings, and the recipe for it."""
    return write_table_corpus(tmp_path)


def ser_train(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of `ser-train run`, or of another command that the arguments begin with."""
    command = [] if arguments[0] in ("protocol", "unfreeze", "ablate", "fusion", "reproduce") else ["run"]
    monkeypatch.setattr(sys, "argv", ["ser-train", *command, *map(str, arguments)])
    return main()


def test_a_table_trains_and_its_run_loads(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (corpus / "toy.toml", "--data", corpus / "corpus.csv", "--out", corpus / "run")
    assert ser_train(monkeypatch, *command, "--labels", "low,high,none") == 0
    run = load_run(corpus / "run")
    assert run.labels == LABELS and run.config.protocol == "given"
    assert tuple(run.branches) == ("whisper_toy", "spectrogram")
    assert set(run.metrics["test"]) == {"whisper_toy", "spectrogram", "fused"}
    said, told = capsys.readouterr()
    assert "clips of split given" in said and "95 % intervals" in said
    assert f'next: ser-export onnx {corpus / "run"} --out my-bundle --licence "TERMS"' in said
    assert "whisper_toy: Of its parts " in told and "spectrogram: Of its parts " in told and "sways the logits" in told
    found = {name: json.loads((corpus / "run" / name / "diagnostics.json").read_text()) for name in run.branches}
    assert all(distance > 0 for distance in found["whisper_toy"]["moved"].values())
    assert {"encoder.layers.1", "classifier.0", "layer_mix"} <= set(found["whisper_toy"]["moved"])
    assert set(found["spectrogram"]["arm"]) == {"logits", "attention", "changed"}
    kept = json.loads((corpus / "run" / "backbone.json").read_text())
    assert kept["config"]["model_type"] == "whisper" and kept["config"]["d_model"] == 16
    clip = torch.zeros(1, 24_000)
    with torch.no_grad():
        assert all(branch(clip).shape == (1, 3) for branch in run.branches.values())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--labels", "low,high"), "label 'none' of train-2.wav is not in the label set"),
        (("--labels", "low,high,none,odd"), "no recording is labelled odd"),
        (("--protocol", "emobox"), "24 actors"),
        (("--backbone", "no/such/folder"), "no/such/folder"),
    ],
)
def test_bad_input_is_refused_before_training(
    options: tuple[str, ...],
    named: str,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = (corpus / "toy.toml", "--data", corpus / "corpus.csv", "--out", corpus / "run")
    assert ser_train(monkeypatch, *command, *options) == 2
    assert named in capsys.readouterr().err
    assert not list(corpus.rglob("state.pt"))


def test_experiments_take_tables(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ("--recipe", corpus / "toy.toml", "--data", corpus / "corpus.csv", "--labels", "low,high,none")
    results = ("--results", corpus / "results")
    assert ser_train(monkeypatch, "reproduce", *shared, *results, "--out", corpus / "runs") == 2
    assert "are of RAVDESS" in capsys.readouterr().err and not (corpus / "runs").exists()
    assert ser_train(monkeypatch, "protocol", "given", *shared, *results, "--out", corpus / "runs") == 0
    assert ser_train(monkeypatch, "unfreeze", "--layers", "0,1", *shared, *results, "--out", corpus / "depths") == 0
    found = {e.experiment: e for e in load(corpus / "results")}
    (run,) = found["protocol"].results["runs"].values()
    assert run["split"] == "given" and run["labels"] == ["low", "high", "none"]
    assert run["clips"] == {"train": 6, "validation": 6, "test": 6}
    assert set(run["speakers"]) == {"speaker of test"}
    assert found["protocol"].protocol == found["unfreezing"].protocol == "given"
    assert found["protocol"].measured["command"].endswith("--results RESULTS --out RUNS")
    assert "--data CORPUS" in found["protocol"].measured["command"]
    assert [depth["layers"] for depth in found["unfreezing"].results["runs"].values()] == [0, 1]


def test_results_are_written_to_the_working_directory_unless_a_folder_is_named(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(corpus)
    before = {path: path.read_bytes() for path in COMMITTED.rglob("*.json")}
    command = ("protocol", "given", "--recipe", "toy.toml", "--data", "corpus.csv", "--out", "runs")
    assert ser_train(monkeypatch, *command) == 0
    assert ser_train(monkeypatch, "fusion", "runs/seed0", "--results", "training/results") == 0
    said = capsys.readouterr().out
    assert "logistic regression (training)" in said and "accuracy, Wilson" in said
    assert sorted(path.name for path in (corpus / "results").iterdir()) == [
        "protocol-scratch-toy-given.json",
        "summary.json",
    ]
    (fusion,) = load(corpus / "training" / "results")
    assert fusion.measured["command"] == "ser-train fusion RUN --results training/results"
    assert before and before == {path: path.read_bytes() for path in COMMITTED.rglob("*.json")}
