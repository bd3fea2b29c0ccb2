"""Table V: both branches and three ways of fusing them, from one run's predictions, with no branch trained again.

Each fusion is fitted on the branches' training probabilities, on their validation ones and, where they were trained,
on out-of-fold ones, since the paper does not say which it used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from ser_batch.bundle.fusion import FUSED
from training.config import FusionConfig
from training.models.fusion import Probabilities, fit_gated, fit_logistic, fit_weighted, stacked
from training.predictions import OUT_OF_FOLD, Predictions, compare, figures
from training.runs import SPECTROGRAM

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
