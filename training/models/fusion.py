"""Fusion of the branches' probabilities: the paper's logistic regression, and the two it is compared with.

Source: paper, section III-E (logistic regression) and Table V (weighted and gated fusion).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.bundle.fusion import Fusion
from ser_batch.evaluation.metrics import accuracy
from training.config import FusionConfig, Stage
from training.data.examples import CachedSet
from training.loop import fit
from training.models.shrunk_fusion import fit_shrunk

Probabilities = Mapping[str, np.ndarray]
"""Branch name → (N, C), in the order of the fusion's inputs."""


def stacked(probabilities: Probabilities) -> np.ndarray:
    """[P_1; P_2] a clip, (N, K · C) float32 (equation 8)."""
    return np.concatenate(list(probabilities.values()), axis=1).astype(np.float32)


class LogisticFusion(nn.Module):
    """Logits W · [P_1; P_2] + b, (N, K · C) → (N, C) (equation 9)."""

    def __init__(self, branches: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(branches * classes, classes)

    def head(self, features: Tensor) -> Tensor:
        return self.linear(features)


class GatedFusion(nn.Module):
    """A gate in (0, 1) a clip from both branches' probabilities mixes them: log(Σ g_k P_k), (N, K · C) → (N, C).

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
    train: tuple[Probabilities, np.ndarray],
    validation: tuple[Probabilities, np.ndarray],
    folder: Path,
    seed: int,
) -> Fusion:
    """The paper's fusion fitted on `train` (probabilities, class indices), as the matrix that is served."""
    names, features = tuple(train[0]), stacked(train[0])
    if config.solver == "lbfgs":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=config.inverse_penalty, max_iter=10_000).fit(features, train[1])
        weight, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
        if len(weight) == 1:  # of two classes scikit-learn gives the logit of the second against the first
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return Fusion(weight, bias, names)
    if config.solver == "shrunk":
        rows = np.stack(list(train[0].values()), axis=1)
        return Fusion(*fit_shrunk(rows, train[1], config.shrinkage), names)
    torch.manual_seed(seed)
    module = LogisticFusion(len(names), features.shape[1] // len(names))
    _fit_module(module, stage, train, validation, folder, seed)
    linear = module.linear
    return Fusion(linear.weight.detach().numpy(), linear.bias.detach().numpy(), names)


def fit_gated(
    stage: Stage,
    train: tuple[Probabilities, np.ndarray],
    validation: tuple[Probabilities, np.ndarray],
    folder: Path,
    seed: int,
) -> GatedFusion:
    """A gate fitted on `train` like the logistic regression."""
    torch.manual_seed(seed)
    names, classes = tuple(train[0]), next(iter(train[0].values())).shape[1]
    module = GatedFusion(len(names), classes)
    _fit_module(module, stage, train, validation, folder, seed)
    return module


def fit_weighted(train: tuple[Probabilities, np.ndarray]) -> WeightedFusion:
    """The share, of 101 from 0 to 1, with the best accuracy on `train`; the middle one of equally good ones."""
    probabilities, truth = train
    shares = np.linspace(0, 1, 101)
    scores = np.array([accuracy(truth, WeightedFusion(s)(probabilities).argmax(axis=1)) for s in shares])
    best = np.flatnonzero(scores == scores.max())
    return WeightedFusion(float(shares[best[len(best) // 2]]))


def _fit_module(
    module: nn.Module,
    stage: Stage,
    train: tuple[Probabilities, np.ndarray],
    validation: tuple[Probabilities, np.ndarray],
    folder: Path,
    seed: int,
) -> None:
    def tensors(part: tuple[Probabilities, np.ndarray]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(stacked(part[0])), torch.from_numpy(part[1])

    features, targets = tensors(train)
    fit("fusion", module, stage, CachedSet(features, targets, seed), tensors(validation), folder, seed=seed)
