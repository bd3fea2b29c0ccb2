"""Whole protocols on a tiny corpus: every split once, resumed without training again, pooled by hand-checked sums."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from ser_batch.errors import TrainingError
from support.toy_corpus import CONFIG, write_corpus
from training.data.corpus import Corpus
from training.data.splits import folds_of, sentence_split, splits_of
from training.reproduction.predictions import load_predictions, measure
from training.reproduction.protocols import (
    Setting,
    averaged,
    by_seed,
    calibration,
    pooled,
    pooled_mcnemar,
    pooled_speakers,
    run_protocol,
)
from training.runtime import Progress, Runtime


def setting(corpus: Corpus, out: Path, progress: Progress | None = None) -> Setting:
    return Setting(CONFIG, corpus, out, Runtime(progress=progress))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def sentence(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("sentence")
    return folder, run_protocol(setting(corpus, folder), "sentence", [0])


def test_every_fold_is_a_run_and_every_clip_is_tested_once(corpus: Corpus, sentence: tuple[Path, dict]) -> None:
    folder, found = sentence
    assert list(found["runs"]) == ["seed0-fold0", "seed0-fold1"]
    tested = [f for name in found["runs"] for f in json.loads((folder / name / "split.json").read_text())["test"]]
    assert sorted(tested) == sorted(e.file for e in corpus.examples)
    for run in found["runs"].values():
        assert set(run["models"]) == {"spectrogram", "context", "fused"}
        assert run["stages"]["spectrogram"]["epochs"] == 2
        assert run["other_take_share"] == 0  # the other take says the same sentence
        assert run["clips"]["test"] == 12


def test_a_finished_protocol_trains_nothing_again(corpus: Corpus, sentence: tuple[Path, dict]) -> None:
    folder, found = sentence
    seen: list[object] = []
    again = run_protocol(setting(corpus, folder, lambda *row: seen.append(row)), "sentence", [0])
    assert not seen and again == found


def test_a_killed_protocol_goes_on_to_the_same_result(
    corpus: Corpus, sentence: tuple[Path, dict], tmp_path: Path
) -> None:
    seen: list[tuple[str, float]] = []

    def kill(stage: str, row: dict[str, float]) -> None:
        seen.append((stage, row["epoch"]))
        if len(seen) == 6:  # in the second fold's context stage
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_protocol(setting(corpus, tmp_path, kill), "sentence", [0])
    resumed: list[object] = []
    found = run_protocol(setting(corpus, tmp_path, lambda *row: resumed.append(row)), "sentence", [0])
    assert len(resumed) == 8 - 6

    def without_time(runs: dict) -> dict:
        return {name: {k: v for k, v in run.items() if k != "stages"} for name, run in runs["runs"].items()}

    assert without_time(found) == without_time(sentence[1])


def test_one_branch_can_be_trained_alone(corpus: Corpus, tmp_path: Path) -> None:
    assert run_protocol(setting(corpus, tmp_path), "paper", [0], only="spectrogram") == {"runs": {}}
    assert (tmp_path / "seed0/spectrogram/best.safetensors").is_file()
    assert not (tmp_path / "seed0/wav2vec2").exists()
    with pytest.raises(TrainingError, match=r"not a finished run.*result|not a finished run"):
        load_predictions(tmp_path / "seed0")


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_that_are_none_are_refused(seeds: list[int], corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="seeds"):
        run_protocol(setting(corpus, tmp_path / "out"), "paper", seeds)
    assert not (tmp_path / "out").exists()


def test_a_protocol_that_does_not_fit_is_refused_before_training(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="24 actors"):
        run_protocol(setting(corpus, tmp_path / "out"), "emobox", [0])
    missing = replace(corpus, root=tmp_path)
    with pytest.raises(TrainingError, match="recordings are not under"):
        run_protocol(setting(missing, tmp_path / "out"), "paper", [0])
    assert not (tmp_path / "out").exists()


def fake(seed: int, fold: int, confusion: list[list[int]], mcnemar: tuple[int, int]) -> dict:
    matrix = np.array(confusion)
    figures = {"confusion": confusion, "accuracy": float(np.trace(matrix) / matrix.sum())}
    figures |= dict.fromkeys(("macro_precision", "macro_recall", "macro_f1", "ua", "ece", "ece_scaled"), 0.5)
    test = {"only_first": mcnemar[0], "only_second": mcnemar[1], "p": 1.0}
    return {"seed": seed, "fold": fold, "models": {"fused": figures}, "mcnemar_fused_context": test}


def test_folds_are_pooled_by_their_counts() -> None:
    runs = [fake(0, 0, [[3, 1], [0, 4]], (4, 1)), fake(0, 1, [[1, 1], [1, 1]], (1, 0))]
    found = pooled(runs, "fused")
    assert found["confusion"] == [[4, 2], [1, 5]] and found["clips"] == 12
    assert found["accuracy"] == pytest.approx(9 / 12)
    assert found["ua"] == pytest.approx((4 / 6 + 5 / 6) / 2)
    assert found["macro_f1"] == pytest.approx((8 / 11 + 10 / 13) / 2)  # 2 tp / (actual + claimed)
    low, high = found["ua_interval"]
    assert low < found["ua"] < high
    assert pooled_mcnemar([run["mcnemar_fused_context"] for run in runs]) == {
        "only_first": 5,
        "only_second": 1,
        "p": pytest.approx(14 / 64),
    }


def test_what_chance_leaves_of_a_calibration_error_is_told_beside_it() -> None:
    rng, bins, clips = np.random.default_rng(0), 3, 40
    confidence = np.array([0.2, 0.5, 0.9])
    hits = rng.binomial(clips, confidence, (4000, bins))  # of models calibrated exactly
    runs = [
        {
            "seed": 0,
            "fold": fold,
            "models": {"fused": {"reliability": np.c_[[clips] * bins, confidence, row / clips].tolist()}},
        }
        for fold, row in enumerate(hits)
    ]
    found = calibration(runs, "fused", "reliability")
    assert found["run"] == pytest.approx(found["run_chance"], rel=0.02)  # all of it is chance
    assert found["run"] == pytest.approx(abs(hits / clips - confidence).mean())
    assert found["seed"] < 0.002 and found["seed_chance"] == pytest.approx(found["run_chance"] / 4000**0.5, rel=0.05)


def test_bins_of_a_seeds_folds_are_added_up() -> None:
    runs = [
        {"seed": 0, "fold": 0, "models": {"fused": {"reliability_scaled": [[0, 0.0, 0.0], [2, 0.7, 0.5]]}}},
        {"seed": 0, "fold": 1, "models": {"fused": {"reliability_scaled": [[3, 0.4, 1 / 3], [6, 0.9, 1.0]]}}},
        {"seed": 1, "fold": 0, "models": {"fused": {"reliability_scaled": [[0, 0.0, 0.0], [1, 0.7, 1.0]]}}},
    ]
    found = calibration(runs, "fused")
    assert found["run"] == pytest.approx((0.2 + (3 * (0.4 - 1 / 3) + 6 * 0.1) / 9 + 0.3) / 3)
    first = (3 * (0.4 - 1 / 3) + abs(2 * (0.5 - 0.7) + 6 * 0.1)) / 11
    assert found["seed"] == pytest.approx((first + 0.3) / 2)


def test_speakers_are_pooled_by_their_clips_and_the_least_comes_first() -> None:
    runs = [
        {"speakers": {"1": {"clips": 4, "fused": 3}, "2": {"clips": 2, "fused": 2}}},
        {"speakers": {"1": {"clips": 4, "fused": 1}}},
        {},  # a result from before speakers were told
    ]
    found = pooled_speakers(runs, "fused")
    assert list(found.items()) == [("1", 0.5), ("2", 1.0)]


def test_runs_are_averaged_with_the_sample_deviation() -> None:
    runs = [fake(s, 0, [[n, 4 - n], [0, 4]], (0, 0)) for s, n in ((0, 4), (1, 2), (2, 0))]
    assert averaged(runs, "fused")["accuracy"] == {"mean": pytest.approx(0.75), "sd": pytest.approx(0.25), "n": 3}
    assert averaged(runs[:1], "fused")["accuracy"]["sd"] is None
    assert {seed: len(of) for seed, of in by_seed(runs).items()} == {0: 1, 1: 1, 2: 1}


def test_measured_figures_are_those_of_the_run(corpus: Corpus, sentence: tuple[Path, dict]) -> None:
    folder, found = sentence
    result = json.loads((folder / "seed0-fold0/result.json").read_text())["test"]
    run = found["runs"]["seed0-fold0"]
    for role, name in (("context", CONFIG.context.name), ("spectrogram", "spectrogram"), ("fused", "fused")):
        assert run["models"][role]["accuracy"] == result[name]["accuracy"]
        assert run["models"][role]["confusion"] == result[name]["confusion"]
    assert measure(load_predictions(folder / "seed0-fold0"))["mcnemar_fused_context"] == run["mcnemar_fused_context"]


def test_out_of_fold_folds_partition_training_and_leave_the_rest_alone(corpus: Corpus) -> None:
    split = sentence_split(corpus, "01")
    folds = folds_of(corpus, split, 4, seed=1)
    assert sorted(i for fold in folds for i in fold.test) == list(split.train)
    for fold in folds:
        assert sorted((*fold.train, *fold.test)) == list(split.train) and fold.validation == split.validation
        assert {corpus.targets[i] for i in fold.train} == {0, 1}
    assert folds == folds_of(corpus, split, 4, seed=1) != folds_of(corpus, split, 4, seed=2)


def test_out_of_fold_folds_keep_speakers_apart_where_the_split_does() -> None:
    from support.toy_corpus import official_names
    from training.data import ravdess

    full = ravdess.from_files(official_names(), Path("nowhere"))
    split = splits_of("emobox", full)[0]
    for fold in folds_of(full, split, 5):
        heard = {full.examples[i].speaker for i in fold.train}
        assert heard.isdisjoint(full.examples[i].speaker for i in fold.test)
    with pytest.raises(TrainingError, match="fewer training speakers than folds"):
        folds_of(full, split, 17)
