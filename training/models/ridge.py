"""A linear head by ridge regression onto the classes, in closed form: no epochs, no learning rate, one optimum.

Few recordings and many statistics of frozen layers are what a strong penalty is for, and squared loss finds it
exactly. The scores become probabilities by one temperature.

Source: Hoerl and Kennard, "Ridge Regression", Technometrics 12, 1970; temperature: Guo et al., ICML 2017.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.blas import ssyrk
from torch import Tensor, nn

from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import fit_temperature
from ser_batch.files import write_atomically
from training.config import Stage
from training.files import write_tensors
from training.loop import BEST, HISTORY, cross_entropy, evaluate, load_weights, logits_of, of_sets, trained_state
from training.models.context import ContextBranch
from training.runtime import CPU, Runtime

SHARPENED = 10.0
"""Factor of scores before their temperature is looked for: regressions onto 0 and 1 differ by less than 1."""


Labelled = tuple[Tensor, Tensor]
"""Features (N, …) and class indices (N,)."""


def fit_ridge(
    name: str,
    branch: ContextBranch,
    stage: Stage,
    train: Labelled,
    validation: Labelled,
    folder: Path,
    *,
    refit: Labelled | None = None,
    runtime: Runtime | None = None,
) -> None:
    """Fit the branch's linear head with each of the stage's penalties; keep the one that is best on validation clips.

    Args:
        name: of the stage, for messages.
        branch: one with a linear head and nothing else to train, on the CPU.
        stage: `penalties` are in units of a standardised training row's mean squared norm; `monitor` chooses.
        validation: their likelihood sets the temperature too.
        refit: all the clips that the head is fitted on anew, with that penalty and that temperature.
        folder: gets best.safetensors and metrics.jsonl, one line per penalty; read if they are there.
        runtime: gets a report of each penalty.

    Raises:
        TrainingError: the branch has no linear head, or a penalty is too small; RunConfig refuses what else a closed
            form does not have.
    """
    branch.linear_head()
    best = folder / BEST
    if not best.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rows, weights = [], []
        for row in _try_penalties(branch, stage, train, validation):
            rows.append(row)
            weights.append(_weights(branch))
            (runtime or Runtime()).report(name, row)
        scores = [-row["loss"] if stage.monitor == "loss" else row[stage.monitor] for row in rows]
        chosen = scores.index(max(scores))
        if refit:
            next(_fitted(branch, (rows[chosen]["penalty"],), *refit))
            _divide(branch, rows[chosen]["temperature"])
            weights[chosen] = _weights(branch)
        write_atomically(folder / HISTORY, "".join(json.dumps(row) + "\n" for row in rows))
        write_tensors(best, weights[chosen])
    load_weights(branch, best)


def _try_penalties(
    branch: ContextBranch, stage: Stage, train: Labelled, validation: Labelled
) -> Iterator[dict[str, float]]:
    """Fit and temper the head with one penalty after the other, and yield the figures of each."""
    started = time.perf_counter()
    for number, penalty in enumerate(_fitted(branch, stage.penalties, *train)):
        temperature = _temper(branch, *validation)
        row = {"epoch": number, "penalty": penalty, "temperature": temperature, "train_loss": _loss(branch, *train)}
        row |= evaluate(branch, *validation, CPU)
        yield row | {"seconds": time.perf_counter() - started}
        started = time.perf_counter()


def _weights(branch: ContextBranch) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trained_state(branch).items()}


def _fitted(branch: ContextBranch, penalties: tuple[float, ...], features: Tensor, targets: Tensor) -> Iterator[float]:
    """Fit the head with one penalty after the other, by way of the (N, N) products of the training rows."""
    norm, linear = branch.linear_head()
    rows = branch.pooled(features).float()
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(deviation.square())
    rows = norm.eval()(rows)
    products = _products(rows)
    scale = float(products.diagonal().mean(dtype=np.float64))
    wanted, share = _wanted(targets, linear.out_features)
    for penalty in penalties:
        system = products.astype(np.float64, order="F")
        system[np.diag_indices_from(system)] += penalty * scale
        try:
            factor = cho_factor(system, overwrite_a=True)
        except (LinAlgError, ValueError) as error:  # ValueError: features that are not finite
            raise TrainingError(
                "ridge regression has no solution",
                got=f"penalty {penalty}, {len(rows)} rows: {error}",
                remedy="Raise the stage's penalties; or the features are not finite.",
            ) from error
        dual = cho_solve(factor, (wanted - share).numpy(), overwrite_b=True)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(dual.T.astype(np.float32)) @ rows)
            linear.bias.copy_(share)
        yield penalty


def _wanted(targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What is regressed onto (N, classes) float64, and its mean (classes,) over the rows that ask for a class.

    Of a set of classes each has an equal share. A class that is not asked for is its mean, which pulls neither way.
    """
    if targets.ndim == 1:
        wanted = nn.functional.one_hot(targets, classes).double()
        return wanted, wanted.mean(dim=0)
    asked = targets >= 0
    wanted = (targets == 1).double()
    wanted /= wanted.sum(dim=1, keepdim=True).clamp(min=1.0)
    share = wanted.sum(dim=0) / asked.sum(dim=0).clamp(min=1)
    return torch.where(asked, wanted, share), share


def _products(rows: Tensor) -> np.ndarray:
    """The upper triangle of rows · rowsᵀ, (N, N) float32 in column order, by half the work of a product of matrices."""
    return ssyrk(1.0, rows.numpy().T, trans=1)


def _temper(branch: ContextBranch, features: Tensor, targets: Tensor) -> float:
    """Divide the head by the temperature that makes `targets` likeliest, and return that."""
    scores = logits_of(branch, features, CPU) * SHARPENED
    probabilities, truth = of_sets(scores.softmax(dim=1).numpy(), targets.numpy())
    temperature = fit_temperature(truth, probabilities) / SHARPENED
    _divide(branch, temperature)
    return temperature


def _divide(branch: ContextBranch, temperature: float) -> None:
    with torch.no_grad():
        for tensor in branch.linear_head()[1].parameters():
            tensor.div_(temperature)


def _loss(branch: ContextBranch, features: Tensor, targets: Tensor) -> float:
    return float(cross_entropy(logits_of(branch, features, CPU), targets))
