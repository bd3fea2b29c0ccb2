"""Made-up experiments whose tables can be checked by hand. Their figures measure nothing."""

from __future__ import annotations

import numpy as np

from training.config import RunConfig
from training.reproduction.predictions import compare, figures
from training.reproduction.results import Experiment, Kind

LABELS = ("neutral", "calm")
MEASURED = {
    "python": "3.11",
    "platform": "toy",
    "processor": "toy",
    "packages": {},
    "git": "0123456789abcdef",
    "command": "ser-train toy",
    "seconds": 12.0,
    "date": "2020-01-01",
}


def scores(right: int, clips: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Truth (clips,) and probabilities (clips, 2) of which the first `right` are right at 0.8."""
    truth = np.arange(clips) % 2
    winners = np.where(np.arange(clips) < right, truth, 1 - truth)
    return truth, np.where(np.arange(2) == winners[:, None], 0.8, 0.2)


def model(right: int) -> dict:
    truth, probabilities = scores(right)
    return figures(truth, probabilities, LABELS, scores(right))


def run(seed: int, fold: int, spectrogram: int, context: int, fused: int) -> dict:
    truth, first = scores(fused)
    stage = {"epochs": 2, "seconds": 1.5, "train_loss": [0.7, 0.5], "validation_accuracy": [0.5, 0.75]}
    return {
        "seed": seed,
        "fold": fold,
        "split": f"toy{seed}",
        "labels": list(LABELS),
        "clips": {"train": 1147, "validation": 143, "test": 150},
        "fit_on": "training",
        "models": {"spectrogram": model(spectrogram), "context": model(context), "fused": model(fused)},
        "mcnemar_fused_context": compare(truth, first, scores(context)[1]),
        "other_take_share": 0.7,
        "stages": {"spectrogram": stage, "wav2vec2": stage},
    }


def experiment(kind: Kind, results: dict, backbone: str = "toy", protocol: str = "paper") -> Experiment:
    changed = {"context.backbone": [RunConfig().context.backbone, backbone]}
    return Experiment(kind, backbone, "paper", protocol, changed, MEASURED, results)


def protocol(name: str = "paper", backbone: str = "toy") -> Experiment:
    runs = {"seed0": run(0, 0, 10, 16, 18), "seed1": run(1, 0, 12, 16, 20)}
    return experiment("protocol", {"runs": runs}, backbone, name)


def unfreezing() -> Experiment:
    stage = run(0, 0, 1, 1, 1)["stages"]["wav2vec2"]
    stages = {k: stage | {"validation_accuracy": [0.5, best]} for k, best in ((0, 0.4), (1, 0.8), (3, 0.9))}
    runs = {
        f"layers{k:02}": {"layers": k, "seed": 0, "trained_parameters": 9, "stage": stages[k], "figures": model(right)}
        for k, right in ((0, 10), (1, 18), (3, 15))
    }
    return experiment("unfreezing", {"depth": 6, "labels": list(LABELS), "runs": runs})


def fusion() -> Experiment:
    truth = scores(1)[0]
    rows = [{"strategy": s, "fit_on": None, **model(n)} for s, n in (("spectrogram", 10), ("context", 15))]
    for strategy, right in (("weighted", 16), ("gated", 14), ("logistic regression", 18)):
        versus = compare(truth, scores(right)[1], scores(15)[1])
        rows.append({"strategy": strategy, "fit_on": "training", **model(right), "mcnemar": versus})
    found = {"labels": list(LABELS), "split": "toy", "rows": rows, "missing": ["out-of-fold"]}
    return experiment("fusion", found)
