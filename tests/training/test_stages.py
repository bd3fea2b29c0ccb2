"""What the stages train on: here, whose clips the spectrogram branch is standardised by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from support.toy_corpus import CONFIG, write_corpus  # noqa: E402
from training.config import AugmentConfig  # noqa: E402
from training.models.spectrogram import SpectrogramBranch  # noqa: E402
from training.runs import begin  # noqa: E402
from training.stages import clean_features, train, training_set  # noqa: E402

AUGMENTS = {
    "fixed": AugmentConfig(snrs=(0.0,)),
    "fresh": AugmentConfig(snrs=(0.0,), fresh=True),
    "versions": AugmentConfig(snrs=(0.0,), fresh=True, versions=2),
}


@pytest.mark.parametrize("kind", AUGMENTS)
def test_the_standardisation_is_of_what_is_trained_on(kind: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio")
    means = {}
    for statistics in ("clean", "augmented"):
        spectrogram = replace(CONFIG.spectrogram, statistics=statistics, standardise="global")
        config = replace(CONFIG, augment=AUGMENTS[kind], spectrogram=spectrogram)
        train(config, corpus, tmp_path / statistics, only="spectrogram")
        means[statistics] = load_file(tmp_path / statistics / "spectrogram/best.safetensors")["standardise.mean"]
    run = begin(config, corpus, tmp_path / "augmented")
    branch = SpectrogramBranch(spectrogram, 2, config.clip.samples)
    clean = clean_features(run, branch, "train").mean()
    trained = torch.cat([features for features, _ in training_set(run, branch, ("train",)).batches(0, 16)]).mean()
    assert means["clean"].item() == pytest.approx(float(clean), abs=1e-3)
    assert means["augmented"].item() == pytest.approx(float(trained), abs=1e-3)
    assert abs(trained - clean) > 0.5
