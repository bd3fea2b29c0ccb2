"""Table IV, Table V and the whole reproduction on a tiny corpus: trained once, resumed, refused before training."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from ser_batch.errors import TrainingError
from ser_batch.evaluation.statistics import mcnemar
from support.toy_corpus import BRIEF, CONFIG, write_corpus
from training import runs, stages
from training.cli import cli
from training.config import RunConfig, load_config
from training.data.corpus import Corpus
from training.options import NUMBERS
from training.reproduction.cli import _recorded
from training.reproduction.experiments import (
    configure,
    measure_fusion,
    measure_unfreezing,
    reproduce,
    train_out_of_fold,
)
from training.reproduction.predictions import SOLVERS, load_predictions, table_v
from training.reproduction.protocols import Setting, averaged
from training.reproduction.results import load
from training.runtime import Runtime, find_device


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def reproduced(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, Path]:
    root = tmp_path_factory.mktemp("reproduced")
    config = replace(BRIEF, fusion=replace(CONFIG.fusion, folds=2))
    setting = Setting(config, corpus, root / "runs", results=root / "results", command="ser-train reproduce")
    return setting, reproduce(setting, [0, 1], [0, 1], ["sentence"], folds=True)


def test_everything_is_on_one_page(reproduced: tuple[Setting, Path]) -> None:
    setting, page = reproduced
    kinds = sorted((e.experiment, e.protocol) for e in load(setting.results))
    assert kinds == [("fusion", "paper"), ("protocol", "paper"), ("protocol", "sentence"), ("unfreezing", "paper")]
    text = page.read_text()
    assert "scratch, recipe toy" in text and "2 × 1" in text and "1 × 2" in text
    pictures = [line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == 5 and all((page.parent / picture).is_file() for picture in pictures)


def test_seeds_of_the_papers_protocol_are_runs(reproduced: tuple[Setting, Path]) -> None:
    setting, _ = reproduced
    (found,) = [e for e in load(setting.results) if (e.experiment, e.protocol) == ("protocol", "paper")]
    runs = found.results["runs"]
    assert [(name, run["seed"], run["split"]) for name, run in runs.items()] == [
        ("seed0", 0, "paper-seed0"),
        ("seed1", 1, "paper-seed1"),
    ]
    assert averaged(runs.values(), "fused")["accuracy"]["n"] == 2


def test_nothing_is_trained_again(reproduced: tuple[Setting, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.reproduction.experiments.draw", lambda *_: [])
    setting, page = reproduced
    before, seen = page.read_text(), []
    again = replace(setting, runtime=Runtime(progress=lambda *row: seen.append(row)))
    reproduce(again, [0, 1], [0, 1], ["sentence"], folds=True)
    assert not seen

    def figures(text: str) -> list[str]:
        return [line for line in text.splitlines() if line[:1] == "|"]

    assert figures(page.read_text()) == figures(before)


def test_unfrozen_layers_train_more_parameters(reproduced: tuple[Setting, Path]) -> None:
    setting, _ = reproduced
    (found,) = [e for e in load(setting.results) if e.experiment == "unfreezing"]
    runs = found.results["runs"]
    assert found.results["depth"] == 2 and [r["layers"] for r in runs.values()] == [0, 1]
    assert runs["layers01"]["trained_parameters"] > runs["layers00"]["trained_parameters"] > 0


def test_the_fusion_is_told_by_speaker_and_against_every_other(reproduced: tuple[Setting, Path]) -> None:
    setting, page = reproduced
    (found,) = (e for e in load(setting.results) if e.experiment == "protocol" and e.protocol == "sentence")
    for name, run in found.results["runs"].items():
        predictions = load_predictions(setting.out / "sentence" / name)
        truth, test = predictions.targets["test"], predictions.probabilities["test"]
        assert sum(row["clips"] for row in run["speakers"].values()) == len(truth)
        right = sum(row["fused"] for row in run["speakers"].values())
        assert right == run["models"]["fused"]["correct"]
        actors = {Path(file).stem.rpartition("-")[2].lstrip("0") for file in predictions.split["test"]}
        assert set(run["speakers"]) == actors
        tests = run["mcnemar_fused"]
        assert set(tests) == {"spectrogram", "context", "weighted", "gated"}
        assert tests["context"] == run["mcnemar_fused_context"]
        versus = mcnemar(test["fused"].argmax(axis=1) == truth, test["spectrogram"].argmax(axis=1) == truth)
        assert (tests["spectrogram"]["only_first"], tests["spectrogram"]["only_second"]) == (
            versus.only_first,
            versus.only_second,
        )
    assert "by speaker" in page.read_text() and "against spectrogram" in page.read_text()


def test_table_v_is_fitted_on_all_three(reproduced: tuple[Setting, Path]) -> None:
    setting, _ = reproduced
    predictions = load_predictions(setting.out / "paper/seed0")
    found = table_v(predictions)
    strategies = ["weighted", "gated", *SOLVERS.values()]
    expected = [("spectrogram", None), ("context", None)]
    expected += [(s, on) for on in ("training", "validation", "out-of-fold") for s in strategies]
    assert [(row["strategy"], row["fit_on"]) for row in found["rows"]] == expected and found["missing"] == []
    result = {row["strategy"]: row for row in found["rows"] if row["fit_on"] == "training"}
    truth, test = predictions.targets["test"], predictions.probabilities["test"]
    own = result["logistic regression"]  # the run's own fusion is this very row
    assert own["accuracy"] == np.mean(test["fused"].argmax(axis=1) == truth)
    versus = mcnemar(test["fused"].argmax(axis=1) == truth, test["wav2vec2"].argmax(axis=1) == truth)
    assert own["mcnemar"] == {"only_first": versus.only_first, "only_second": versus.only_second, "p": versus.p}


def test_a_run_without_folds_says_so(reproduced: tuple[Setting, Path], tmp_path: Path) -> None:
    setting, _ = reproduced
    measure_fusion(setting.out / "paper/seed1", tmp_path, "ser-train fusion RUN")
    assert load(tmp_path)[0].results["missing"] == ["out-of-fold"]


def test_out_of_fold_probabilities_are_of_models_that_never_saw_the_clip(
    reproduced: tuple[Setting, Path], corpus: Corpus
) -> None:
    setting, _ = reproduced
    run = setting.out / "paper/seed0"
    predictions = load_predictions(run)
    assert predictions.targets["out-of-fold"].tolist() == predictions.targets["train"].tolist()
    for name, rows in predictions.probabilities["out-of-fold"].items():
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
        assert not np.array_equal(rows, predictions.probabilities["train"][name])
    train_out_of_fold(run, corpus, Runtime(progress=lambda *_: pytest.fail("trained again")))


def test_a_fusion_can_be_fitted_on_out_of_fold_probabilities(
    reproduced: tuple[Setting, Path], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, _ = reproduced
    held = load_predictions(setting.out / "paper/seed0")
    part = (held.branches("out-of-fold"), held.targets["out-of-fold"])
    monkeypatch.setattr(stages, "out_of_fold", lambda _: part)
    config = replace(setting.config, fusion=replace(setting.config.fusion, fit_on="out-of-fold"))
    run = runs.begin(config, corpus, tmp_path)
    fitted = stages.fit_fusion(run, {p: held.branches(p) for p in ("train", "validation", "test")})
    (row,) = [
        r for r in table_v(held)["rows"] if (r["strategy"], r["fit_on"]) == ("logistic regression", "out-of-fold")
    ]
    fused = fitted(held.branches("test")).argmax(axis=1)
    assert row["accuracy"] == np.mean(fused == held.targets["test"])


def test_layers_that_are_not_there_are_refused_before_training(corpus: Corpus, tmp_path: Path) -> None:
    setting = Setting(CONFIG, corpus, tmp_path / "out", results=tmp_path / "results")
    with pytest.raises(TrainingError, match="unfrozen_layers"):
        measure_unfreezing(setting, [0, 3])
    with pytest.raises(TrainingError, match="unfrozen_layers"):
        reproduce(setting, [0], [3], [], folds=False)
    with pytest.raises(TrainingError, match="numbers of layers"):
        measure_unfreezing(setting, [1, 1])
    assert not (tmp_path / "out").exists()


def test_caps_and_backbones_change_what_they_name() -> None:
    assert configure("paper") == RunConfig()
    config = configure("paper", "some/where", 3, 4)
    assert (config.context_stage.epochs, config.spectrogram_stage.epochs) == (3, 4)
    assert config.context.backbone == "some/where"


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0,2,5", [0, 2, 5]), ("0-3", [0, 1, 2, 3]), ("1,3-4", [1, 3, 4])]
)
def test_numbers_are_lists_and_ranges(text: str, numbers: list[int]) -> None:
    assert NUMBERS.convert(text, None, None) == numbers


@pytest.mark.parametrize(
    "command", ["run", "protocol", "unfreeze", "ablate", "fusion", "out-of-fold", "reproduce", "tables"]
)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0 and len(result.output) > 100


def test_bad_numbers_and_missing_runs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli, ["unfreeze", "--data", "d", "--out", "o", "--layers", "a"])
    assert result.exit_code == 2 and "not a list of numbers" in result.output
    with pytest.raises(TrainingError, match="not a finished run"):
        measure_fusion(tmp_path, tmp_path, "")
    monkeypatch.setattr(sys, "argv", ["ser-train"])
    refused = CliRunner().invoke(cli, ["protocol", "paper", "--data", str(tmp_path), "--out", str(tmp_path / "o")])
    assert isinstance(refused.exception, TrainingError) and "not the whole speech subset" in str(refused.exception)


@pytest.mark.parametrize("wrong", ["²", "3-1", "1-", "-1", ""])
def test_what_is_no_list_of_numbers_is_refused(wrong: str) -> None:
    with pytest.raises(click.BadParameter):
        NUMBERS.convert(wrong, None, None)


def test_out_of_fold_wants_a_run(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"is not a run; got no config\.json"):
        train_out_of_fold(tmp_path, corpus)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_here_is_refused_before_the_folder_is_begun(
    name: str, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="no such device; got"):
        find_device(name)
    table = tmp_path / "corpus.csv"
    lines = [f"{corpus.path(i)},{example.label}" for i, example in enumerate(corpus.examples)]
    table.write_text("\n".join(["path,label", *lines]))
    options = ["--data", str(table), "--out", str(tmp_path / "run"), "--device", name]
    refused = CliRunner().invoke(cli, ["run", "compact", *options])
    assert isinstance(refused.exception, TrainingError) and not (tmp_path / "run").exists()


def test_reading_a_run_leaves_what_trained_it(reproduced: tuple[Setting, Path]) -> None:
    setting, _ = reproduced
    folder = setting.out / "paper" / "seed0"
    environment = folder / "environment.json"
    kept = environment.read_text()
    environment.write_text(kept.replace('"python"', '"then"'))
    runs.begin(load_config(folder / "config.json"), setting.corpus, folder)
    assert '"then"' in environment.read_text()
    environment.write_text(kept)


def test_tables_checks_and_renews_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: table-iii -->\n<!-- end of table-iii -->\n")
    options = ["tables", "--page", str(page), "--results", str(tmp_path)]
    assert CliRunner().invoke(cli, [*options, "--check"]).exit_code == 1
    assert CliRunner().invoke(cli, options).exit_code == 0
    assert CliRunner().invoke(cli, [*options, "--check"]).exit_code == 0
    absent = CliRunner().invoke(cli, ["tables", "--page", str(tmp_path / "no.md"), "--results", str(tmp_path)])
    assert isinstance(absent.exception, TrainingError) and "holds no results" in str(absent.exception)


def test_a_recorded_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["ablate", "--variants", "/opt/x/two.toml", "--data", "/corpora/ravdess", "--results", "results"]
    monkeypatch.setattr("sys.argv", ["/env/bin/ser-train", *given])
    assert _recorded({"/corpora/ravdess": "RAVDESS", Path("results"): "RESULTS"}) == (
        "ser-train ablate --variants .../two.toml --data RAVDESS --results results"
    )
