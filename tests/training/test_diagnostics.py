"""What a run says of its branches' parts (a live arm, a dead one, how far each moved) and of its clips' bandwidth."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support.toy_corpus import CONFIG, write_corpus  # noqa: E402
from support.toy_run import make_toy_run  # noqa: E402
from training import runs  # noqa: E402
from training.config import AugmentConfig, LogMelConfig, SpectrogramConfig, Stage  # noqa: E402
from training.data.examples import CachedSet  # noqa: E402
from training.diagnostics import (  # noqa: E402
    DEAD,
    arm_figures,
    diagnose,
    moved,
    of_the_fusion,
    read_all,
    summary,
    trained_bandwidth,
    weights,
)
from training.loop import evaluate, fit, seed_everything  # noqa: E402
from training.models.spectrogram import SpectrogramBranch, Views  # noqa: E402

CPU = torch.device("cpu")
RATE, SAMPLES, TONES = 48_000, 144_000, (400.0, 1200.0, 3600.0)
SMALL = SpectrogramConfig(
    mel=LogMelConfig(n_mels=32),
    channels=(4, 8, 8, 8),
    cnn_dropout=0.1,
    pool=(1, 4),
    layers=2,
    feed_forward=64,
    transformer_dropout=0.1,
    standardise="global",
)
"""Every part of the branch, narrower."""
ANCESTOR = dataclasses.replace(SMALL, norm="post", positions="none", residual_mean=False, balance=False)
STAGE = Stage("adamw", 3e-3, epochs=8, patience=8, monitor="accuracy", weight_decay=0.01)


def turns(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips of three short tones in a circle, from anywhere in it and at any time: upwards (0) or downwards (1).

    All clips hold the same tones, each tone comes first, second and last equally often in both classes, so that no sum
    over places tells them apart, and the tones lie further apart (0.95 s) than a unit of the CNN sees (76 frames).
    """
    rng, time = np.random.default_rng(seed), np.arange(RATE // 10) / RATE
    targets = rng.integers(2, size=count)
    clips = rng.normal(0, 1e-3, (count, SAMPLES)).astype(np.float32)
    for clip, target in zip(clips, targets, strict=True):
        tones = np.roll(TONES, rng.integers(3))[:: -1 if target else 1]
        start, gap = rng.uniform(0, 0.9), rng.uniform(0.93, 0.97)
        for number, hertz in enumerate(tones):
            first = int((start + number * gap) * RATE)
            clip[first : first + len(time)] += 0.3 * np.hanning(len(time)) * np.sin(2 * np.pi * hertz * time)
    return clips, targets


def spectrograms(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel spectrograms and classes of `turns`."""
    waveforms, targets = turns(count, seed)
    frontend = SpectrogramBranch(SMALL, 2).features
    features = torch.cat([frontend(batch) for batch in torch.from_numpy(waveforms).split(32)])
    return features, torch.from_numpy(targets)


@pytest.fixture(scope="module")
def clips() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """320 clips to train on and 160 others."""
    return {"train": spectrograms(320, 1), "held-out": spectrograms(160, 2)}


class CnnAlone(SpectrogramBranch):
    """The branch without its arm."""

    def views(self, features: torch.Tensor, weights: bool = False) -> Views:
        views = super().views(features, weights)
        return views._replace(attended=torch.zeros_like(views.attended))


def trained(kind: type[SpectrogramBranch], config: SpectrogramConfig, clips: dict, folder: Path) -> SpectrogramBranch:
    seed_everything(0)
    branch = kind(config, 2).to(memory_format=torch.channels_last)
    branch.standardise.fit(clips["train"][0])
    fit("spectrogram", branch, STAGE, CachedSet(*clips["train"], seed=0), None, folder)  # its last epoch counts
    return branch


@pytest.mark.slow
def test_the_arm_tells_an_order_that_its_cnn_cannot(clips: dict, tmp_path: Path) -> None:
    branch = trained(SpectrogramBranch, SMALL, clips, tmp_path / "both")
    figures = arm_figures(branch, clips["held-out"][0], CPU)
    assert figures["logits"] >= 0.05
    assert figures["attention"] <= 0.9
    assert figures["changed"] > 0.1
    both = evaluate(branch, *clips["held-out"], CPU)["accuracy"]
    alone = evaluate(trained(CnnAlone, SMALL, clips, tmp_path / "cnn"), *clips["held-out"], CPU)["accuracy"]
    assert both > 0.9 and alone < 0.75


@pytest.mark.slow
def test_the_ancestors_arm_is_dead_and_told_so(clips: dict, tmp_path: Path) -> None:
    branch = trained(SpectrogramBranch, ANCESTOR, clips, tmp_path)
    figures = arm_figures(branch, clips["held-out"][0], CPU)
    assert figures["logits"] < DEAD and figures["changed"] < 0.05
    start = weights(branch)
    (tmp_path / "spectrogram").mkdir()
    diagnose(branch, start, clips["held-out"][0], tmp_path / "spectrogram", CPU)
    assert "WARNING: the arm is dead" in summary(read_all(tmp_path)["spectrogram"])


def test_the_arms_figures_follow_their_definitions() -> None:
    torch.manual_seed(0)
    branch = SpectrogramBranch(SMALL, 2).eval()
    features, _ = spectrograms(70, 2)  # more than one batch
    with torch.no_grad():
        branch.cross_attention.in_proj_weight[: branch.query.out_features].zero_()
        branch.cross_attention.in_proj_bias[: branch.query.out_features].zero_()
        assert arm_figures(branch, features, CPU)["attention"] == pytest.approx(1, abs=1e-5)
        views = branch.views(features)
        parts = branch.shares(views)
        torch.testing.assert_close(sum(parts) + branch.classifier.bias, branch.head(features), atol=1e-5, rtol=0)
        expected = parts[1].numpy().std(axis=0).mean() / parts[0].numpy().std(axis=0).mean()
        assert arm_figures(branch, features, CPU)["logits"] == pytest.approx(expected, rel=1e-4)
        branch.classifier.weight[:, -branch.query.out_features :].zero_()
    assert arm_figures(branch, features, CPU) | {"attention": 0} == {"logits": 0, "changed": 0, "attention": 0}


def test_how_far_parts_moved() -> None:
    stack = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    branch = torch.nn.ModuleDict({"layers": stack, "frozen": torch.nn.Linear(2, 2), "mix": torch.nn.Linear(2, 2)})
    branch["frozen"].requires_grad_(False)
    with torch.no_grad():
        for parameter in branch["mix"].parameters():
            parameter.zero_()
    start = weights(branch)
    with torch.no_grad():
        for parameter in [*stack[1].parameters()]:
            parameter.mul_(1.5)
        branch["mix"].bias.add_(1)
    found = moved(start, weights(branch))
    assert found.keys() == {"layers.0", "layers.1", "mix"}
    assert found["layers.0"] == 0 and found["layers.1"] == pytest.approx(0.5)
    assert found["mix"] == pytest.approx(math.sqrt(2))


def test_a_branch_without_an_arm_says_how_far_it_moved(tmp_path: Path) -> None:
    branch = torch.nn.ModuleDict({"layers": torch.nn.Sequential(torch.nn.Linear(3, 4))})
    start = {name: 2 * tensor for name, tensor in weights(branch).items()}
    (tmp_path / "wav2vec2").mkdir()
    diagnose(branch, start, torch.zeros(2, 3), tmp_path / "wav2vec2", CPU)
    assert json.loads((tmp_path / "wav2vec2/diagnostics.json").read_text()) == {"moved": {"layers.0": 0.5}}
    said = summary(read_all(tmp_path)["wav2vec2"])
    assert said == "Of its parts layers.0 changed most in training, by 0.5 of its size, and layers.0 least, by 0.5."


@pytest.mark.parametrize(
    ("figures", "warning"),
    [
        ({"logits": 0.31, "attention": 0.2, "changed": 0.112}, None),
        ({"logits": 0.049, "attention": 0.2, "changed": 0.112}, "the arm is dead"),
        ({"logits": 0.31, "attention": 0.2, "changed": 0.0}, "the arm is dead"),
        ({"logits": 0.31, "attention": 0.93, "changed": 0.112}, "the attention has not learnt where to look"),
    ],
)
def test_the_arms_figures_are_told_with_what_is_healthy(figures: dict[str, float], warning: str | None) -> None:
    said = summary({"moved": {"transformer.norm": 0.036, "cnn.0": 2.6}, "arm": figures})
    assert f"sways the logits {figures['logits']:.1%} as much as its CNN (healthy: 5% or more)" in said
    assert ("WARNING" not in said) if warning is None else f"WARNING: {warning}" in said
    assert "WARNING: cnn.0 did not train" in summary({"moved": {"cnn.0": 0.0, "norm": 1.0}})


def test_the_mask_that_nothing_meets_is_no_dead_part() -> None:
    branch = torch.nn.ParameterDict({"masked_spec_embed": torch.zeros(2), "weight": torch.ones(2)})
    assert set(weights(branch)) == {"weight"}


def test_a_fusion_worse_than_a_branch_is_told() -> None:
    found = {"context": {"ua": 0.5}, "spectrogram": {"ua": 0.95}, "fused": {"ua": 0.25}}
    said = of_the_fusion(found, "adam")
    assert said and "the fusion has a UA of 25.0%, spectrogram alone 95.0%" in said and 'solver = "lbfgs"' in said
    assert "lbfgs" not in str(of_the_fusion(found, "shrunk"))
    assert of_the_fusion(found | {"fused": {"ua": 0.9}}, "adam") is None


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
