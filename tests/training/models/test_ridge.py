"""The linear head in closed form: scikit-learn's optimum, a likely temperature, kept once found, refused elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
Ridge = pytest.importorskip("sklearn.linear_model").Ridge

from torch import Tensor  # noqa: E402

from ser_batch.bundle.fusion import load_fusion  # noqa: E402
from ser_batch.errors import TrainingError  # noqa: E402
from ser_batch.evaluation.metrics import fit_temperature  # noqa: E402
from support.toy_corpus import CONFIG, write_corpus  # noqa: E402
from training.config import ContextConfig, RunConfig, Stage  # noqa: E402
from training.data.ravdess import parse  # noqa: E402
from training.loop import logits_of  # noqa: E402
from training.models.context import ContextBranch  # noqa: E402
from training.models.ridge import fit_ridge  # noqa: E402
from training.reproduction.predictions import load_predictions, measure, table_v  # noqa: E402
from training.runs import build_branches  # noqa: E402
from training.stages import train  # noqa: E402

CLASSES = 3
HEAD: dict[str, Any] = {
    "hidden": (),
    "layer_weights": True,
    "concatenate_layers": True,
    "unfrozen_layers": 0,
    "freeze_projection": True,
    "pooling": "mean+std+thirds+deltas",
}
STAGE = Stage("ridge", 1e-3, epochs=1, patience=1, monitor="loss", penalties=(0.1, 1.0))
CPU = torch.device("cpu")


def make(**changes: Any) -> ContextBranch:
    return build_branches(replace(CONFIG, context=replace(CONFIG.context, **HEAD | changes)), CLASSES)["wav2vec2"]


def clips(branch: ContextBranch, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of noise whose strongest unit says the class, with some of it wrong."""
    made, rows = torch.Generator().manual_seed(seed), (branch.depth + 1) * branch.statistics
    features = torch.randn(count, rows, branch.width, generator=made) * 3 + 1
    targets = torch.randint(CLASSES, (count,), generator=made)
    features[torch.arange(count), :4, targets] += 9
    return features, targets


def rows_of(features: Tensor) -> np.ndarray:
    return features.flatten(1).double().numpy()


def test_it_is_the_optimum_that_scikit_learn_finds(tmp_path: Path) -> None:
    branch = make()
    train_clips, validation = clips(branch, 60, 0), clips(branch, 40, 1)
    fit_ridge("context", branch, replace(STAGE, penalties=(0.3,)), train_clips, validation, tmp_path)
    x = rows_of(train_clips[0])
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    x = (x - mean) / np.sqrt(deviation**2 + 1e-5)  # torch's batch norm adds as much
    theirs = Ridge(0.3 * np.square(x).sum(axis=1).mean()).fit(x, np.eye(CLASSES)[train_clips[1].numpy()])
    expected = theirs.predict((rows_of(validation[0]) - mean) / np.sqrt(deviation**2 + 1e-5))
    ours = logits_of(branch, validation[0], CPU).numpy()
    scale = np.vdot(expected, ours) / np.vdot(expected, expected)  # one temperature over all scores
    np.testing.assert_allclose(ours, scale * expected, atol=2e-4 * scale)
    assert scale > 1


def test_the_temperature_is_the_likeliest(tmp_path: Path) -> None:
    branch = make()
    train_clips, validation = clips(branch, 60, 0), clips(branch, 40, 1)
    fit_ridge("context", branch, STAGE, train_clips, validation, tmp_path)
    logits = logits_of(branch, validation[0], CPU)
    losses = [float(torch.nn.functional.cross_entropy(factor * logits, validation[1])) for factor in (0.9, 1.0, 1.1)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_validation_chooses_the_penalty_and_a_second_call_reads_it(monitor: Any, tmp_path: Path) -> None:
    branch, stage = make(), replace(STAGE, monitor=monitor, penalties=(1e-4, 1e-1, 1e3))
    train_clips, validation = clips(branch, 60, 0), clips(branch, 40, 1)
    fit_ridge("context", branch, stage, train_clips, validation, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["penalty"] for row in rows] == [1e-4, 1e-1, 1e3] and len({row["loss"] for row in rows}) == 3
    best = min(rows, key=lambda row: row["loss"] if monitor == "loss" else -row["accuracy"])
    kept = logits_of(branch, validation[0], CPU)
    assert float(torch.nn.functional.cross_entropy(kept, validation[1])) == pytest.approx(best["loss"], rel=1e-5)
    again = make()
    fit_ridge("context", again, stage, (torch.zeros(0), torch.zeros(0)), validation, tmp_path)  # nothing is fitted
    torch.testing.assert_close(logits_of(again, validation[0], CPU), kept, atol=0, rtol=0)


def test_refit_keeps_what_validation_chose_and_fits_all_clips(tmp_path: Path) -> None:
    branch, stage = make(), replace(STAGE, penalties=(1e-4, 1e-1, 1e3))
    train_clips, validation = clips(branch, 60, 0), clips(branch, 40, 1)
    both = tuple(torch.cat(pair) for pair in zip(train_clips, validation, strict=True))
    fit_ridge("context", branch, stage, train_clips, validation, tmp_path, refit=both)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    chosen = min(rows, key=lambda row: row["loss"])
    other = make()
    fit_ridge("context", other, replace(stage, penalties=(chosen["penalty"],)), both, validation, tmp_path / "other")
    theirs = json.loads((tmp_path / "other" / "metrics.jsonl").read_text())
    probe, _ = clips(branch, 30, 2)
    factor = theirs["temperature"] / chosen["temperature"]  # the one chosen before the validation clips were seen
    torch.testing.assert_close(logits_of(branch, probe, CPU), factor * logits_of(other, probe, CPU))
    assert factor != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("changes", [{"hidden": (8, 8)}, {"concatenate_layers": False}, {"unfrozen_layers": 1}])
def test_heads_that_have_no_closed_form_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    branch = make(**changes)
    with pytest.raises(TrainingError, match=r"linear classifier.*hidden = \[\]"):
        fit_ridge(
            "context", branch, STAGE, (torch.zeros(0), torch.zeros(0)), (torch.zeros(0), torch.zeros(0)), tmp_path
        )


def whole(**changes: Any) -> RunConfig:
    """A configuration that ridge regression fits, but for `changes` of its parts."""
    parts = {"context": replace(CONFIG.context, **HEAD), "context_stage": STAGE}
    parts["spectrogram_stage"] = replace(CONFIG.spectrogram_stage, epochs=1)
    return replace(CONFIG, **parts | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": replace(CONFIG.context, **HEAD | {"hidden": (8, 8)})}, r"linear classifier.*'hidden': \(8, 8\)"),
        (
            {"context": replace(CONFIG.context, **HEAD | {"unfrozen_layers": 1})},
            "classifier.*'unfrozen_layers': 1",
        ),
        ({"context": replace(CONFIG.context, **HEAD | {"concatenate_layers": False})}, "'concatenate_layers': False"),
        ({"context_stage": replace(STAGE, mixup=0.2)}, "no label smoothing, no mixup"),
        ({"context_stage": replace(STAGE, label_smoothing=0.1)}, "no label smoothing, no mixup"),
        ({"augment": replace(CONFIG.augment, fresh=True)}, r"draws new ones every epoch.*augment\.versions"),
        ({"spectrogram_stage": STAGE}, "spectrogram_stage by ridge"),
        ({"fusion_stage": STAGE}, "fusion_stage by ridge"),
    ],
)
def test_what_a_closed_form_has_not_is_refused_before_anything_is_computed(
    change: dict[str, Any], message: str
) -> None:
    assert whole().context_stage is STAGE
    with pytest.raises(TrainingError, match=message):
        whole(**change)


def test_refit_needs_a_fusion_on_clips_that_no_branch_was_trained_on() -> None:
    with pytest.raises(TrainingError, match=r"refit.*got fusion\.fit_on training; expected out-of-fold"):
        replace(CONFIG, refit=True)


def test_settings_are_checked() -> None:
    with pytest.raises(TrainingError, match=r"penalties.*got \(\)"):
        replace(STAGE, penalties=())
    with pytest.raises(TrainingError, match="penalties"):
        replace(STAGE, penalties=(0.0,))
    with pytest.raises(TrainingError, match=r"hidden.*got \(0,\)"):
        ContextConfig(hidden=(0,))


def test_a_whole_run_with_refit(tmp_path: Path) -> None:
    """Validation clips are trained on, met out of fold, and reported nowhere as if they had been held out."""
    corpus = write_corpus(tmp_path / "audio", actors=(1, 2, 3, 4))
    fusion = replace(CONFIG.fusion, fit_on="out-of-fold", folds=2, solver="shrunk")
    config, run = whole(refit=True, fusion=fusion), tmp_path / "run"
    result = train(config, corpus, run)
    assert result is not None and set(result) == {"train", "test"}
    held = load_predictions(run)
    split = held.split
    fitted = [*split["train"], *split["validation"]]
    truth = [corpus.labels.index(parse(file).label) for file in fitted]
    assert held.held_out == "out-of-fold" and held.targets["out-of-fold"].tolist() == truth
    for number in range(2):
        fold = json.loads((run / "out-of-fold" / str(number) / "split.json").read_text())
        assert sorted(fold["train"] + fold["validation"] + fold["test"]) == sorted(fitted)
        assert set(fold["test"]) & set(split["train"]) and set(fold["test"]) & set(split["validation"])
    rows = held.probabilities["out-of-fold"]
    np.testing.assert_allclose(rows["fused"], load_fusion(run / "fusion.npz")(held.branches("out-of-fold")))
    measured = measure(held)
    assert measured["clips"] == {part: len(split[part]) for part in ("train", "validation", "test")}
    assert measured["models"]["fused"]["temperature"] == pytest.approx(
        fit_temperature(held.targets["out-of-fold"], rows["fused"])
    )
    assert {row["fit_on"] for row in table_v(held)["rows"]} == {None, "training", "out-of-fold"}


def test_a_whole_run(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "audio", actors=(1, 2, 3, 4, 5, 6))
    augment = replace(CONFIG.augment, fresh=True, versions=2, gain=3.0)
    result = train(whole(augment=augment), corpus, tmp_path / "run")
    assert result is not None and result["train"]["wav2vec2"]["accuracy"] > 0.8
    assert set(result) == {"train", "validation", "test"}  # without refit
