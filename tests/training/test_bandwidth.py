from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.toy_corpus import CONFIG, write_corpus
from support.toy_run import make_toy_run
from training import runs
from training.bandwidth import trained_bandwidth
from training.config import AugmentConfig


def bandwidth(folder: Path, augment: AugmentConfig) -> float:
    corpus = write_corpus(folder / "audio")
    found = trained_bandwidth(runs.begin(replace(CONFIG, augment=augment), corpus, folder / "run"))
    assert found is not None
    return found


def test_it_is_of_the_clips_as_they_are_trained_on(tmp_path: Path) -> None:
    clean = bandwidth(tmp_path / "clean", AugmentConfig(snrs=()))
    narrow = bandwidth(tmp_path / "narrow", AugmentConfig(snrs=(), fresh=True, channels=("telephone",)))
    assert narrow < 4_100 < 20_000 < clean  # the toy clips hold white noise


def test_a_bundle_s_provenance_has_it(tmp_path: Path) -> None:
    run = make_toy_run(tmp_path / "run")
    assert "bandwidth_hz" not in runs.load_run(run).provenance
    (run / runs.BANDWIDTH).write_text(json.dumps({"hertz": 8000.0}))
    assert runs.load_run(run).provenance["bandwidth_hz"] == 8000.0
