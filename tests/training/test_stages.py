"""What the stages train on: here, whose clips the spectrogram branch is standardised by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from support.no_values import NoValues  # noqa: E402
from support.toy_corpus import BRIEF, CONFIG, write_corpora, write_corpus  # noqa: E402
from training.config import AugmentConfig  # noqa: E402
from training.data.background import background_clip  # noqa: E402
from training.data.corpora import Corpora  # noqa: E402
from training.data.features import encode  # noqa: E402
from training.loop import (  # noqa: E402
    BEST,
    CrossEntropy,
    build_optimizer,
    load_weights,
    logits_of,
    training_step,
)
from training.models.spectrogram import SpectrogramBranch  # noqa: E402
from training.runs import begin, build_branches, load_run  # noqa: E402
from training.stages import clean_features, train, training_set  # noqa: E402

LINEAR = replace(
    CONFIG.context,
    hidden=(),
    unfrozen_layers=0,
    freeze_projection=True,
    layer_weights=True,
    concatenate_layers=True,
)
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
        config = replace(BRIEF, augment=AUGMENTS[kind], spectrogram=spectrogram)
        train(config, corpus, tmp_path / statistics, only="spectrogram")
        means[statistics] = load_file(tmp_path / statistics / "spectrogram/best.safetensors")["standardise.mean"]
    run = begin(config, corpus, tmp_path / "augmented")
    branch = SpectrogramBranch(spectrogram, 2, config.clip.samples)
    clean = clean_features(run, branch, "train").mean()
    trained = torch.cat([features for features, _ in training_set(run, branch, ("train",)).batches(0, 16)]).mean()
    assert means["clean"].item() == pytest.approx(float(clean), abs=1e-3)
    assert means["augmented"].item() == pytest.approx(float(trained), abs=1e-3)
    assert abs(trained - clean) > 0.5


JOINED = replace(
    BRIEF,
    protocol="given",
    fusion=replace(CONFIG.fusion, fit_on="validation", solver="shrunk"),
    corpus_power=0.0,
    label_power=0.0,
)
"""Of several corpora, each of which counts as much."""


def test_clips_without_speech_join_each_batch_and_make_the_branch_less_sure_of_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.stages.BACKGROUND", 48)
    corpus, surest = write_corpus(tmp_path / "audio"), {}
    stage = replace(CONFIG.spectrogram_stage, epochs=6, patience=6)
    for background in (0.0, 0.5):
        augment = AugmentConfig(fresh=True, versions=1, background=background)
        config = replace(CONFIG, augment=augment, spectrogram_stage=stage)
        run, branch = begin(config, corpus, tmp_path / f"{background}"), build_branches(config, 2)["spectrogram"]
        examples = training_set(run, branch, ("train",))
        branch.train()  # as an epoch does, before it asks for the first batch
        features, targets = next(examples.batches(0, 8))
        assert branch.training
        assert len(features) == 8 * (1 + background)
        if background:
            assert (targets[8:] == 1).all() and (targets[:8] == 1).sum() == 8
        train(config, corpus, run.folder, only="spectrogram")
        load_weights(branch, run.folder / "spectrogram" / BEST)
        rng = np.random.default_rng(99)
        clips = [background_clip(config.clip, augment, rng) for _ in range(24)]
        unsure = logits_of(branch, encode(branch, clips, run.runtime.device), run.runtime.device).softmax(dim=1)
        surest[background] = float(unsure.max(dim=1).values.mean())
    assert surest[0.5] < surest[0.0]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    return write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.mark.parametrize("context", ["epochs", "ridge", "waveform"])
def test_corpora_with_other_labels_train_one_model(context: str, corpora: Corpora, tmp_path: Path) -> None:
    config = JOINED
    if context == "ridge":
        ridge = replace(BRIEF.context_stage, optimizer="ridge")
        config = replace(config, context=LINEAR, context_stage=ridge)
    if context == "waveform":
        waveform = replace(CONFIG.context, unfrozen_layers=-1, freeze_feature_encoder=False)
        augment = AugmentConfig(fresh=True, versions=1, noises=("white", "babble"))
        config = replace(config, context=waveform, augment=augment)
    result = train(config, corpora.for_training(), tmp_path / "run")
    assert result
    found = result["test"]["fused"]["corpora"]
    assert found["fine"]["labels"] == ["calm", "neutral"] and found["coarse"]["labels"] == ["happy", "quiet"]
    assert result["test"]["fused"]["ua"] == pytest.approx((found["fine"]["ua"] + found["coarse"]["ua"]) / 2)


def test_a_corpus_that_is_left_out_is_tested_on_whole(corpora: Corpora, tmp_path: Path) -> None:
    left = train(JOINED, corpora.for_training(["fine"]), tmp_path / "left")
    assert left and left["test"]["fused"]["corpora"]["coarse"]["clips"] == 24
    assert list(load_run(tmp_path / "left").provenance["corpora"]) == ["fine"]  # the other's terms are not the run's


@pytest.mark.parametrize("name", ["wav2vec2", "spectrogram"])
def test_no_step_of_a_branch_waits_for_the_device(name: str) -> None:
    context = replace(
        CONFIG.context, architecture={**CONFIG.context.architecture, "layerdrop": 0.0}
    )  # drawn on the CPU
    branch = build_branches(replace(CONFIG, context=context), 8)[name].train()
    with torch.no_grad():
        features = branch.features(torch.randn(4, CONFIG.clip.samples))
    batch, stage = (features, torch.arange(4)), CONFIG.context_stage
    steps = (branch, branch.head, batch, stage, build_optimizer(branch, stage), CrossEntropy())
    training_step(*steps)
    with NoValues():
        training_step(*steps)
