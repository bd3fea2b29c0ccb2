"""Decision-level fusion: one multinomial logistic regression over the branches' probabilities.

Source: paper, section III-E and equation 9: P = softmax(W [p_1; ...; p_K] + b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.files import read_arrays, write_arrays
from ser_batch.errors import BundleError

FUSED = "fused"
"""Name of the fusion's own probabilities, beside those of the branches."""
Probabilities = npt.NDArray[np.float32]
"""(B, C) float32; each row is a distribution over the labels."""
Embeddings = npt.NDArray[np.float32]
"""(B, D) float32: what a branch's classifier sees of each clip."""


@dataclass(frozen=True, eq=False)
class Fusion:
    """softmax(W · [p_1; ...; p_K] + b) over C labels and K branches.

    Raises:
        BundleError: the shapes do not fit together, a branch is named twice, or a value is not finite.
    """

    weight: npt.NDArray[np.float64]
    """(C, K·C): column k·C + j weighs label j of the k-th branch."""
    bias: npt.NDArray[np.float64]
    """(C,)"""
    branches: tuple[str, ...]
    """The K branch names, in the order of the inputs."""

    def __post_init__(self) -> None:
        # Float64 throughout: the matrix is tiny, and one precision gives one result however it was trained.
        for name in ("weight", "bias"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "branches", tuple(self.branches))
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise BundleError("a fusion needs branches of distinct names", got=list(self.branches))
        classes = self.bias.size
        shapes, fitting = (
            (self.weight.shape, self.bias.shape),
            ((classes, len(self.branches) * classes), (classes,)),
        )
        if classes == 0 or shapes != fitting:
            raise BundleError(
                "the fusion's weight and bias do not fit its branches",
                got=f"weight {shapes[0]} and bias {shapes[1]} for {len(self.branches)} branches",
                expected="weight (C, K·C) and bias (C,)",
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise BundleError("the fusion holds values that are not finite")

    @property
    def classes(self) -> int:
        """C, the number of labels."""
        return int(self.bias.size)

    @property
    def inputs(self) -> int:
        """C, the number of labels of each branch."""
        return self.classes

    def __call__(
        self, probabilities: Mapping[str, npt.NDArray[Any]], embedding: Embeddings | None = None
    ) -> Probabilities:
        """Fuse one batch: branch name -> (B, C) probabilities, to (B, C) float32; an embedding changes nothing.

        Raises:
            BundleError: a branch is missing, one is not known, or the shapes differ.
        """
        if set(probabilities) != set(self.branches):
            raise BundleError(
                "the fusion was given other branches", got=sorted(probabilities), expected=list(self.branches)
            )
        shapes = {name: probabilities[name].shape for name in self.branches}
        batch = probabilities[self.branches[0]].shape[:1]
        if any(shape != (*batch, self.classes) for shape in shapes.values()):
            raise BundleError(
                "the branches' probabilities do not fit the fusion",
                got=shapes,
                expected=f"(B, {self.classes}) each",
            )
        stacked = np.concatenate([probabilities[name] for name in self.branches], axis=1, dtype=np.float64)
        return softmax(stacked @ self.weight.T + self.bias).astype(np.float32)


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Softmax of each row of (B, C) logits, safe against overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def save_fusion(fusion: Fusion, path: Path) -> None:
    """Write `fusion` as an .npz of `weight`, `bias` and `branches` (the names, in order)."""
    write_arrays(
        path,
        {"weight": fusion.weight, "bias": fusion.bias, "branches": np.array(fusion.branches, dtype=np.str_)},
    )


def load_fusion(path: Path) -> Fusion:
    """Read what `save_fusion` wrote, without pickle.

    Raises:
        BundleError: the file is damaged, or its arrays do not make a fusion.
    """
    arrays = read_arrays(path, frozenset({"weight", "bias", "branches"}))
    kinds = {name: array.dtype.kind for name, array in arrays.items()}
    if kinds != {"weight": "f", "bias": "f", "branches": "U"} or arrays["branches"].ndim != 1:
        raise BundleError(
            f"{path} does not hold a fusion",
            got={name: f"{array.dtype} {array.shape}" for name, array in arrays.items()},
            expected="float weight, float bias and a list of branch names",
        )
    return Fusion(arrays["weight"], arrays["bias"], tuple(str(name) for name in arrays["branches"]))
