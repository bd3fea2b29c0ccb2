"""Fusion of the branches' probabilities: the paper's logistic regression, and the two it is compared with.

Source: paper, section III-E, equations 8 and 9 (logistic regression) and Table V (weighted and gated fusion).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from torch import Tensor, nn

from ser_batch.bundle.fusion import Fusion
from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import accuracy
from training.config import FusionConfig, Stage
from training.data.examples import CachedSet
from training.loop import fit

Probabilities = Mapping[str, np.ndarray]
"""Branch name → (N, C), in the order of the fusion's inputs."""
Labelled = tuple[Probabilities, np.ndarray]
"""Probabilities of N clips and their class indices (N,)."""


def stacked(probabilities: Probabilities) -> np.ndarray:
    """[P_1; P_2] of each clip, (N, K · C) float32 (equation 8)."""
    return np.concatenate(list(probabilities.values()), axis=1).astype(np.float32)


class LogisticFusion(nn.Module):
    """Logits W · [P_1; P_2] + b, (N, K · C) → (N, C) (equation 9)."""

    def __init__(self, branches: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(branches * classes, classes)

    def head(self, features: Tensor) -> Tensor:
        return self.linear(features)


class GatedFusion(nn.Module):
    """A gate in (0, 1) per clip from both branches' probabilities mixes them: log(Σ g_k P_k), (N, K · C) → (N, C).

    Table V names "dynamic weight allocation" without saying how; one linear layer and a softmax over the branches is
    the smallest gate (ours).
    """

    def __init__(self, branches: int, classes: int) -> None:
        super().__init__()
        self.shape = (-1, branches, classes)
        self.gate = nn.Linear(branches * classes, branches)

    def head(self, features: Tensor) -> Tensor:
        gates = self.gate(features).softmax(dim=1)
        mixed = (gates[:, :, None] * features.reshape(self.shape)).sum(dim=1)
        return mixed.clamp(min=1e-12).log()


@dataclass(frozen=True)
class WeightedFusion:
    """share · P_1 + (1 − share) · P_2, one share for all clips (Table V)."""

    share: float

    def __call__(self, probabilities: Probabilities) -> np.ndarray:
        first, second = probabilities.values()
        return self.share * first + (1 - self.share) * second


def fit_logistic(
    config: FusionConfig,
    stage: Stage,
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    *,
    weights: np.ndarray | None = None,
) -> Fusion:
    """The paper's fusion fitted on `train`, as the matrix that is served; `shrunk` counts clips by their `weights`."""
    names = tuple(train[0])
    if train[1].ndim > 1 and config.solver != "shrunk":
        raise TrainingError(
            "several corpora whose labels are sets of classes need the fusion's solver shrunk", got=config.solver
        )
    if config.solver == "lbfgs":
        return Fusion(*_fit_exact(*train, config.inverse_penalty), names)
    if config.solver == "shrunk":
        return shrunk_fusion(config.shrinkage, train, weights)
    linear = _fit_module(LogisticFusion, stage, train, validation, folder, seed).linear
    return Fusion(linear.weight.detach().numpy(), linear.bias.detach().numpy(), names)


def shrunk_fusion(shrinkage: float, train: Labelled, weights: np.ndarray | None = None) -> Fusion:
    """`fit_shrunk` of the branches' probabilities, as the matrix that is served."""
    probabilities, targets = train
    return Fusion(
        *fit_shrunk(np.stack(list(probabilities.values()), axis=1), targets, shrinkage, weights), tuple(probabilities)
    )


def fit_gated(stage: Stage, train: Labelled, validation: Labelled, folder: Path, seed: int) -> GatedFusion:
    """A gate fitted on `train` like the logistic regression."""
    return _fit_module(GatedFusion, stage, train, validation, folder, seed)


def fit_weighted(train: Labelled) -> WeightedFusion:
    """The share, of 101 from 0 to 1, with the best accuracy on `train`; the middle one of equally good ones."""
    probabilities, truth = train
    shares = np.linspace(0, 1, 101)
    scores = np.array([accuracy(truth, WeightedFusion(s)(probabilities).argmax(axis=1)) for s in shares])
    best = np.flatnonzero(scores == scores.max())
    return WeightedFusion(float(shares[best[len(best) // 2]]))


Module = TypeVar("Module", LogisticFusion, GatedFusion)


def _fit_module(
    kind: type[Module], stage: Stage, train: Labelled, validation: Labelled, folder: Path, seed: int
) -> Module:
    def tensors(part: Labelled) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(stacked(part[0])), torch.from_numpy(part[1])

    torch.manual_seed(seed)
    module = kind(len(train[0]), next(iter(train[0].values())).shape[1])
    fit("fusion", module, stage, CachedSet(*tensors(train), seed), tensors(validation), folder, seed=seed)
    return module


def _fit_exact(probabilities: Probabilities, targets: np.ndarray, inverse: float) -> tuple[np.ndarray, np.ndarray]:
    """The optimum of the L2-penalised problem with scikit-learn's C = `inverse`: weight (C, K · C), bias (C,)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse, max_iter=10_000).fit(stacked(probabilities), targets)
    weight, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    if len(weight) == 1:  # of two classes scikit-learn gives the logit of the second against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def fit_shrunk(
    probabilities: np.ndarray, targets: np.ndarray, shrinkage: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression that is shrunk towards one weight per branch: weight (C, K · C) and bias (C,), float64.

    A matrix of C × K·C weights, fitted on some thousand clips, learns those clips by heart: it can lose against a
    plain weighted sum of the branches. Here the logits are Σ_k a_k P_k + D [P_1; …; P_K] + b, where a weight per
    branch, a_k, is free and D and b are penalised: mean cross-entropy + ½ shrinkage (‖D‖² + ‖b‖²) is least. However
    strong the penalty, what is left is the best weighted sum, sharpened. W = [a_1 I; …; a_K I] + D is served.

    Args:
        probabilities: (N, K, C) of K branches.
        targets: (N,) class indices, or (N, C) sets of classes (training.data.corpus).
        weights: (N,) how much each clip counts, of sum 1; None: all alike.
    """
    count, branches, classes = probabilities.shape
    shares_of_clips = np.full(count, 1 / count) if weights is None else weights
    probabilities = probabilities.astype(np.float64)
    flat, sets = probabilities.reshape(count, -1), np.eye(classes)[targets] if targets.ndim == 1 else targets

    def matrix(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares, rest = parameters[:branches], parameters[branches:].reshape(classes, -1)
        return np.kron(shares, np.eye(classes)) + rest[:, :-1], rest[:, -1]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = matrix(parameters)
        scores = log_softmax(np.where(sets >= 0, flat @ weight.T + bias, -np.inf), axis=1)
        of_set = np.where(sets == 1, scores, -np.inf)
        likelihood = logsumexp(of_set, axis=1)
        error = (np.exp(scores) - np.exp(of_set - likelihood[:, None])) * shares_of_clips[:, None]  # by the logits
        penalised = parameters[branches:]
        by_share = np.einsum("nc,nkc->k", error, probabilities)
        by_rest = np.concatenate([error.T @ flat, error.sum(axis=0)[:, None]], axis=1).ravel() + shrinkage * penalised
        value = -likelihood @ shares_of_clips + 0.5 * shrinkage * penalised @ penalised
        return float(value), np.concatenate([by_share, by_rest])

    start = np.concatenate([np.ones(branches), np.zeros(classes * (branches * classes + 1))])
    return matrix(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x)
