"""Leave one corpus out: each is tested by a model that never heard it, and the table says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from ser_batch.bundle.trust import parse_trust, read_trust
from ser_batch.errors import TrainingError
from support.toy_corpus import BRIEF, write_corpora
from training.data.corpora import Corpora, load_corpora
from training.files import read_json
from training.reproduction.experiments import measure_loco
from training.reproduction.loco import threshold
from training.reproduction.results import load
from training.reproduction.tables import loco_table
from training.runtime import Runtime
from training.stages import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpora]:
    """A run over two corpora, each left out in turn, and with them a third that is only measured; read only."""
    folder = tmp_path_factory.mktemp("loco")
    write_corpora(folder)
    text = (folder / "corpora.toml").read_text()
    other = text[text.index("[[corpus]]", 60) :].replace('"coarse"', '"kept"', 1).replace('"train"', '"measure"')
    (folder / "corpora.toml").write_text(f"{text}\n{other}")
    corpora = load_corpora(folder / "corpora.toml")
    fusion = replace(BRIEF.fusion, fit_on="out-of-fold", solver="shrunk")
    stages: list[str] = []
    runtime = Runtime(progress=lambda stage, _: stages.append(stage))
    train(replace(BRIEF, protocol="given", refit=True, fusion=fusion), corpora.for_training(), folder / "run", runtime)
    folds = ("", "fold 1 of 2 (without fine), ", "fold 2 of 2 (without coarse), ")
    assert list(dict.fromkeys(stages)) == [
        fold + branch for fold in folds for branch in (BRIEF.context.name, "spectrogram")
    ]
    return folder / "run", corpora


def test_each_corpus_is_measured_by_a_model_that_never_heard_it(trained: tuple[Path, Corpora], tmp_path: Path) -> None:
    run, corpora = trained
    path = measure_loco(run, corpora, tmp_path / "results", "command")
    found = read_json(path)["results"]
    assert list(found["runs"]) == ["fine", "coarse", "kept"]
    for name, clips in {"fine": 16, "coarse": 16, "kept": 24}.items():
        fused = found["runs"][name]["fused"]
        assert fused["clips"] == clips == np.sum(fused["confusion"])
        low, high = fused["ua_interval"]
        assert low <= fused["ua"] <= high and fused["over"] == "clips"  # three speakers are too few
    for number, name in enumerate(("fine", "coarse")):
        split = read_json(run / "out-of-fold" / str(number) / "split.json")
        assert not any(file.startswith(name) for file in split["train"] + split["validation"])
    assert found["heard"] == ["fine", "coarse"]
    assert found["runs"]["fine"]["fused"]["labels"] == ["calm or neutral"]  # the other corpus has one word for both
    assert found["threshold"] is None or found["threshold"]["precision"] >= 0.7
    stated = parse_trust(read_trust(run / "trust.json"), "trust.json")
    assert stated.unseen and stated.unseen.clips == 16 + 16 + 24
    assert stated.unseen.corpora == ("kept", *(f"{name} (left out of the training)" for name in ("fine", "coarse")))
    assert bool(stated.confident) == bool(found["threshold"])
    table = loco_table(load(tmp_path / "results"))
    assert "fine, left out" in table and "kept, never trained on" in table and "mean of those left out (2)" in table


def test_a_run_that_left_nothing_out_is_refused(trained: tuple[Path, Corpora], tmp_path: Path) -> None:
    run, corpora = trained
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("out-of-fold"))
    with pytest.raises(TrainingError, match="has not left any corpus out"):
        measure_loco(tmp_path / "run", corpora, tmp_path / "results", "command")


def test_the_threshold_is_the_lowest_score_whose_answers_are_right_often_enough() -> None:
    sure = np.array([0.9, 0.8, 0.5, 0.4]), np.array([True, True, False, False])
    unsure = np.array([0.3, 0.3]), np.array([False, False])
    found = threshold([sure, unsure])
    assert found == {"score": 0.51, "precision": 1.0, "share": 0.25}
    assert threshold([unsure]) is None
