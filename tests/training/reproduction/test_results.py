"""Results on disk: named after what they are, merged by run, summarised from all files, refused when misnamed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ser_batch.errors import TrainingError
from support import toy_results
from support.shared_data import COMMITTED
from training.config import ContextConfig, RunConfig, load_config
from training.reproduction.results import (
    METRICS,
    SUMMARY,
    backbone_name,
    changes,
    describe,
    load,
    save,
    spread,
    summarise,
)


def test_spread_is_the_sample_deviation() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"mean": 2.0, "sd": 1.0, "n": 3}
    assert spread([0.5]) == {"mean": 0.5, "sd": None, "n": 1}


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("facebook/wav2vec2-base", "wav2vec2-base"),
        ("/some/where/whisper-base-encoder", "whisper-base"),
        ("openai/whisper-large-v3", "whisper-large-v3"),
        ("scratch", "scratch"),
    ],
)
def test_results_stand_under_the_backbones_name(backbone: str, name: str) -> None:
    assert backbone_name(RunConfig(context=ContextConfig(backbone=backbone))) == name


def test_what_differs_from_the_paper_is_told() -> None:
    assert changes(load_config("paper")) == {}
    config = RunConfig(recipe="x", seed=3, protocol="emobox", fold=2)
    config = replace(config, context_stage=replace(config.context_stage, epochs=12))
    config = replace(config, context=replace(config.context, backbone="/a/whisper-base-encoder"))
    assert changes(config) == {
        "context.backbone": ["facebook/wav2vec2-base", "whisper-base"],
        "context_stage.epochs": [120, 12],
    }
    assert "context.architecture.hidden_size" in changes(load_config("compact"))


def test_an_experiment_is_described_by_its_machine_and_commit() -> None:
    found = describe("fusion", RunConfig(), {"rows": []}, "ser-train fusion RUN", 1.26)
    assert found.file == "fusion-wav2vec2-base-paper-paper.json"
    assert found.measured["seconds"] == 1.3 and found.measured["command"] == "ser-train fusion RUN"
    assert {"packages", "processor", "git", "python", "date"} <= set(found.measured)


def test_a_saved_result_is_read_back_and_summarised(tmp_path: Path) -> None:
    made = toy_results.protocol()
    path = save(made, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".protocol.json.0123abcd.tmp").write_text("{")  # what a kill in the middle of a write leaves
    (again,) = load(tmp_path)
    assert path.name == made.file and again.changed == made.changed
    summary = json.loads((tmp_path / SUMMARY).read_text())
    fused = summary["toy"]["paper"]["paper"]["fused"]
    assert set(fused) == set(METRICS)
    assert fused["accuracy"] == {"mean": 0.95, "sd": pytest.approx(0.070711), "n": 2}  # 18 and 20 of 20


def test_new_runs_join_old_ones_of_the_same_configuration(tmp_path: Path) -> None:
    made = toy_results.protocol()
    save(made, tmp_path)
    save(replace(made, results={"runs": {"seed2": toy_results.run(2, 0, 1, 2, 3)}}), tmp_path)
    assert list(load(tmp_path)[0].results["runs"]) == ["seed0", "seed1", "seed2"]
    other = replace(made, changed={}, results={"runs": {"seed0": toy_results.run(0, 0, 1, 2, 3)}})
    save(other, tmp_path)
    assert list(load(tmp_path)[0].results["runs"]) == ["seed0"]


def test_runs_of_another_corpus_are_not_mixed(tmp_path: Path) -> None:
    made = toy_results.protocol()
    save(replace(made, results={**made.results, "corpus": {"name": "a"}}), tmp_path)
    runs = {"seed2": toy_results.run(2, 0, 1, 2, 3)}
    save(replace(made, results={"runs": runs, "corpus": {"name": "a"}}), tmp_path)
    assert list(load(tmp_path)[0].results["runs"]) == ["seed0", "seed1", "seed2"]
    save(replace(made, results={"runs": runs, "corpus": {"name": "b"}}), tmp_path)
    assert list(load(tmp_path)[0].results["runs"]) == ["seed2"]


def test_variants_join_others_unless_one_has_changed(tmp_path: Path) -> None:
    made, slow = toy_results.protocol(), {"context_stage.learning_rate": [1e-3, 3.3e-7]}

    def found(run: str, variants: dict) -> list[str]:
        save(replace(made, results={"runs": {run: toy_results.run(0, 0, 1, 2, 3)}, "variants": variants}), tmp_path)
        return list(load(tmp_path)[0].results["runs"])

    assert found("slow/seed0", {"slow": slow}) == ["slow/seed0"]
    assert found("slow/seed1", {"slow": slow}) == ["slow/seed0", "slow/seed1"]
    assert found("deep/seed0", {"deep": {"context.layers": [4, 6]}}) == ["deep/seed0", "slow/seed0", "slow/seed1"]
    assert found("slow/seed2", {"slow": {"context_stage.learning_rate": [1e-3, 1e-6]}}) == ["slow/seed2"]


def test_settings_are_kept_as_they_are(tmp_path: Path) -> None:
    made = replace(toy_results.protocol(), changed={"spectrogram.mel.floor": [1e-10, 1e-7]})
    save(made, tmp_path)
    save(replace(made, results={"runs": {"seed2": toy_results.run(2, 0, 1, 2, 3)}}), tmp_path)
    (found,) = load(tmp_path)
    assert found.changed == made.changed and list(found.results["runs"]) == ["seed0", "seed1", "seed2"]


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no folder"):
        load(tmp_path / "nowhere")


def test_other_backbones_stand_beside_each_other(tmp_path: Path) -> None:
    save(toy_results.protocol(), tmp_path)
    save(toy_results.protocol("emobox", "other"), tmp_path)
    save(toy_results.unfreezing(), tmp_path)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert {(b, p) for b, recipes in summary.items() for p in recipes["paper"]} == {
        ("toy", "paper"),
        ("other", "emobox"),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", r"broken\.json is not valid JSON"),
        ("[]", r"broken\.json is not an object"),
        ('{"experiment": "protocol"}', r"broken\.json lacks backbone"),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(TrainingError, match=named):
        load(tmp_path)


def test_a_misnamed_result_is_refused(tmp_path: Path) -> None:
    save(toy_results.protocol(), tmp_path).rename(tmp_path / "another.json")
    with pytest.raises(TrainingError, match=r"another\.json is misnamed; expected protocol-toy-paper-paper\.json"):
        load(tmp_path)


def test_the_committed_summary_is_made_from_the_committed_results() -> None:
    made = json.loads((COMMITTED / SUMMARY).read_text())
    again = summarise(load(COMMITTED))
    assert made

    def flat(tree: object, prefix: str = "") -> dict[str, object]:
        if not isinstance(tree, dict):
            return {prefix: tree}
        return {k: v for key, inner in tree.items() for k, v in flat(inner, f"{prefix}/{key}").items()}

    assert flat(made) == pytest.approx(flat(again), abs=2e-6)
