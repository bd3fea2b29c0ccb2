"""What a finished run said of its clips, and what that is worth: figures from predictions.npz, no model needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.bundle.fusion import FUSED, Fusion, load_fusion
from ser_batch.errors import TrainingError
from ser_batch.evaluation.calibration import calibration_error, fit_temperature, reliability, temper
from ser_batch.evaluation.metrics import evaluate
from ser_batch.evaluation.statistics import mcnemar
from training.config import RunConfig
from training.configfile import load_config
from training.data.splits import PARTS
from training.files import read_arrays, read_json
from training.runs import SPECTROGRAM

OUT_OF_FOLD = "out-of-fold"


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
    for name in ("config.json", "split.json", "predictions.npz", "result.json"):
        if not (folder / name).is_file():
            raise TrainingError(
                f"{folder} is not a finished run", got=f"no {name}", remedy="Give the command that began it again."
            )
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
    """Epochs, seconds and curves of every stage that left metrics in a run's folder."""
    found = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = {
            "epochs": len(rows),
            "seconds": sum(row["seconds"] for row in rows),
            "train_loss": [row["train_loss"] for row in rows],
            "validation_accuracy": [row["accuracy"] for row in rows if "accuracy" in row],
        }
    return found
