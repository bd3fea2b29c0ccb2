"""A finished run's predictions and what they are worth: its own figures, and Table V's fusions of its branches.

Figures come from predictions.npz; no model is needed and no branch is trained again. Each fusion of Table V is fitted
on the branches' training probabilities, on their validation ones and, where they were trained, on out-of-fold ones,
since the paper does not say which it used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from ser_batch.bundle.fusion import FUSED, Fusion, load_fusion
from ser_batch.evaluation.metrics import calibration_error, evaluate, fit_temperature, reliability, temper
from ser_batch.evaluation.statistics import mcnemar
from training.config import FusionConfig, RunConfig, load_config
from training.data.splits import PARTS
from training.files import read_arrays, read_json
from training.loop import HISTORY
from training.models.fusion import Probabilities, fit_gated, fit_logistic, fit_weighted, stacked
from training.runs import SPECTROGRAM, check_finished

OUT_OF_FOLD = "out-of-fold"
SOURCES = {"training": "train", "validation": "validation", OUT_OF_FOLD: OUT_OF_FOLD}
"""What a fusion is fitted on → the part of the predictions that it is."""
SIMPLER = ("weighted", "gated")
"""The fusions that the logistic regression is compared with; `_fusions` begins with them."""
SOLVERS: dict[Literal["adam", "lbfgs", "shrunk"], str] = {
    "adam": "logistic regression",
    "lbfgs": "logistic regression, exact",
    "shrunk": "logistic regression, shrunk",
}
"""How the logistic regression is fitted → its name in the table."""
Fused = Callable[[Probabilities], np.ndarray]
"""Branch probabilities → fused ones (N, C)."""


@dataclass(frozen=True)
class Predictions:
    """A run's probabilities, part by part."""

    config: RunConfig
    labels: tuple[str, ...]
    split: dict[str, Any]
    """split.json."""
    targets: dict[str, np.ndarray]
    """Part → class indices (n,); the parts are train, validation (without `refit`), test and, where it was trained,
    out-of-fold."""
    probabilities: dict[str, dict[str, np.ndarray]]
    """Part → model → (n, C)."""

    @property
    def context(self) -> str:
        """Name of the context branch."""
        return self.config.context.name

    @property
    def held_out(self) -> str:
        """The part that the branches it speaks of never trained on, beside the test: what calibrates."""
        return OUT_OF_FOLD if self.config.refit else "validation"

    def branches(self, part: str) -> dict[str, np.ndarray]:
        """The branches' probabilities of a part, in the order of the fusion's inputs, without the fused ones."""
        return {name: self.probabilities[part][name] for name in (self.context, SPECTROGRAM)}


def load_predictions(folder: Path) -> Predictions:
    """The predictions of a finished run; TrainingError if it is not there or not finished."""
    check_finished(folder, "config.json", "split.json", "predictions.npz", "result.json")
    arrays = read_arrays(folder / "predictions.npz")
    extra = folder / OUT_OF_FOLD / "predictions.npz"
    if extra.is_file():
        arrays |= _with_fused(read_arrays(extra), load_fusion(folder / "fusion.npz"))
    targets, probabilities = {}, {}
    for key, rows in arrays.items():
        part, _, name = key.rpartition("/")
        if name == "targets":
            targets[part] = rows
        elif name != "files":
            probabilities.setdefault(part, {})[name] = rows
    split = read_json(folder / "split.json")
    config = load_config(folder / "config.json")
    return Predictions(config, tuple(split["labels"]), split, targets, probabilities)


def _with_fused(arrays: dict[str, np.ndarray], fusion: Fusion) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities with what the run's fusion makes of them."""
    branches = {name: arrays[f"{OUT_OF_FOLD}/{name}"] for name in fusion.branches}
    return arrays | {f"{OUT_OF_FOLD}/{FUSED}": fusion(branches)}


def figures(
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: tuple[str, ...],
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Everything reported of one model on test clips, as JSON types.

    With `validation` (class indices, probabilities) also the calibration after temperature scaling fitted there.
    """
    found = evaluate(truth, probabilities, labels)
    row = {
        "clips": found.clips,
        "correct": found.correct,
        "accuracy": found.accuracy,
        "accuracy_interval": list(found.accuracy_interval),
        "macro_precision": found.macro.precision,
        "macro_recall": found.macro.recall,
        "macro_f1": found.macro.f1,
        "ua": found.ua,
        "ua_interval": list(found.ua_interval),
        "ece": found.ece,
        "confusion": [list(counts) for counts in found.confusion],
        "reliability": [[b.clips, b.confidence, b.accuracy] for b in found.reliability],
    }
    if validation:
        temperature = fit_temperature(*validation)
        scaled = temper(probabilities, temperature)
        bins = reliability(scaled.argmax(axis=1) == truth, scaled.max(axis=1))
        row |= {"temperature": temperature, "ece_scaled": calibration_error(bins)}
        row["reliability_scaled"] = [[b.clips, b.confidence, b.accuracy] for b in bins]
    return row


def compare(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """McNemar's test of two models' probabilities (N, C) of the same clips, as JSON types."""
    test = mcnemar(first.argmax(axis=1) == truth, second.argmax(axis=1) == truth)
    return {"only_first": test.only_first, "only_second": test.only_second, "p": test.p}


def measure(predictions: Predictions) -> dict[str, Any]:
    """The test figures of both branches and of the run's own fusion, as one entry of an experiment.

    Models are named spectrogram, context and fused, whatever the context branch's own name.
    """
    truth, test = predictions.targets["test"], predictions.probabilities["test"]
    models, held_out = {}, predictions.held_out
    for name, rows in test.items():
        validation = (predictions.targets[held_out], predictions.probabilities[held_out][name])
        role = "context" if name == predictions.context else name
        models[role] = figures(truth, rows, predictions.labels, validation)
    return {
        "seed": predictions.config.seed,
        "fold": predictions.config.fold,
        "split": predictions.split["name"],
        "labels": list(predictions.labels),
        "clips": {part: len(predictions.split[part]) for part in PARTS},
        "fit_on": predictions.config.fusion.fit_on,
        "models": models,
        "mcnemar_fused_context": compare(truth, test[FUSED], test[predictions.context]),
    }


def by_speaker(predictions: Predictions, speakers: Mapping[str, str | None]) -> dict[str, dict[str, int]]:
    """Speaker → test clips, and how many of them each model has right; `speakers` are those of the files."""
    truth, found = predictions.targets["test"], {}
    right = {model: rows.argmax(axis=1) == truth for model, rows in predictions.probabilities["test"].items()}
    for number, file in enumerate(predictions.split["test"]):
        row = found.setdefault(speakers[file] or "unknown", {"clips": 0, **dict.fromkeys(right, 0)})
        row["clips"] += 1
        for model, hits in right.items():
            row[model] += int(hits[number])
    return found


def stage_figures(folder: Path) -> dict[str, dict[str, Any]]:
    """Epochs, seconds and curves of every stage that left metrics in a run's folder.

    Norms of the gradient are medians over the steps of an epoch, before clipping.
    """
    found = {}
    for path in sorted(folder.glob(f"*/{HISTORY}")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = {
            "epochs": len(rows),
            "seconds": sum(row["seconds"] for row in rows),
            "train_loss": [row["train_loss"] for row in rows],
            "validation_accuracy": [row["accuracy"] for row in rows if "accuracy" in row],
            "validation_loss": [row["loss"] for row in rows if "loss" in row],
            "gradient_norm": [row["gradient_norm"] for row in rows if "gradient_norm" in row],
        }
    return found


def table_v(predictions: Predictions) -> dict[str, Any]:
    """Rows of Table V as JSON types, and what each fusion could not be fitted on.

    A row's McNemar test compares it, first, with the context branch alone, second. Temperatures are fitted on
    validation clips or, where those were trained on too, out of fold; for fusions that were fitted there, that
    flatters nothing on the test clips.
    """
    branches = {role: (lambda p, name=name: p[name]) for role, name in _roles(predictions).items()}
    rows = [_row(predictions, role, None, model) for role, model in branches.items()]
    for source, part in SOURCES.items():
        if part in predictions.targets:
            for strategy, model in _fusions(predictions, part):
                rows.append(_row(predictions, strategy, source, model))
    missing = [source for source, part in SOURCES.items() if part not in predictions.targets]
    return {"labels": list(predictions.labels), "split": predictions.split["name"], "rows": rows, "missing": missing}


def compare_fused(predictions: Predictions) -> dict[str, Any]:
    """McNemar's tests on test clips of the run's own fusion, first, against each branch and each simpler fusion.

    The simpler fusions are fitted on what the run's own was fitted on.
    """
    truth, test = predictions.targets["test"], predictions.probabilities["test"]
    others = {role: test[name] for role, name in _roles(predictions).items()}
    for strategy, model in islice(_fusions(predictions, SOURCES[predictions.config.fusion.fit_on]), len(SIMPLER)):
        others[strategy] = model(predictions.branches("test"))
    return {name: compare(truth, test[FUSED], rows) for name, rows in others.items()}


def _roles(predictions: Predictions) -> dict[str, str]:
    return {"spectrogram": SPECTROGRAM, "context": predictions.context}


def _fusions(predictions: Predictions, part: str) -> Iterator[tuple[str, Fused]]:
    """Every strategy of Table V, fitted on a part; the logistic regression in each way."""
    config = predictions.config
    train = (predictions.branches(part), predictions.targets[part])
    validation = (predictions.branches(predictions.held_out), predictions.targets[predictions.held_out])
    yield "weighted", fit_weighted(train)
    with TemporaryDirectory() as folder:
        gate = fit_gated(config.fusion_stage, train, validation, Path(folder), config.seed)
    yield "gated", lambda probabilities: _probabilities(gate, probabilities)
    for solver, name in SOLVERS.items():
        settings: FusionConfig = replace(config.fusion, solver=solver)
        with TemporaryDirectory() as folder:
            yield name, fit_logistic(settings, config.fusion_stage, train, validation, Path(folder), config.seed)


def _probabilities(gate: Any, probabilities: Probabilities) -> np.ndarray:
    gate.eval()
    with torch.no_grad():
        return gate.head(torch.from_numpy(stacked(probabilities))).softmax(dim=1).numpy()


def _row(predictions: Predictions, strategy: str, source: str | None, model: Fused) -> dict[str, Any]:
    test, held_out = predictions.branches("test"), predictions.held_out
    truth, fused = predictions.targets["test"], model(test)
    against = (predictions.targets[held_out], model(predictions.branches(held_out)))
    row = {"strategy": strategy, "fit_on": source, **figures(truth, fused, predictions.labels, against)}
    if strategy != "context":
        row["mcnemar"] = compare(truth, fused, test[predictions.context])
    return row
