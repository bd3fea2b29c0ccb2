"""A head: labels of one's own from an embedding and the branches' probabilities, by one matrix.

It takes the fusion's place in a bundle whose graphs stay what they are. The logarithm undoes the branches' softmax, so
a head is linear in what they know; probabilities below `FLOOR` are alike, since in lower precisions they are noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.files import read_arrays, write_arrays
from ser_batch.bundle.fusion import Embeddings, Fusion, Probabilities, load_fusion, save_fusion, softmax
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.errors import BundleError

FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Head:
    """softmax(W · [e; log p_1; …; log p_K] + b) over L labels, of an embedding e and K branches of C labels.

    Raises:
        BundleError: the shapes do not fit together, a branch is named twice, or a value is not finite.
    """

    weight: npt.NDArray[np.float64]
    """(L, D + K·C): column D + k·C + j weighs the logarithm of label j of the k-th branch."""
    bias: npt.NDArray[np.float64]
    """(L,)"""
    branches: tuple[str, ...]
    """The K branch names, in the order of the inputs."""
    embedding: int
    """D"""

    def __post_init__(self) -> None:
        for name in ("weight", "bias"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "branches", tuple(self.branches))
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise BundleError("a head needs branches of distinct names", got=list(self.branches))
        columns = self.weight.shape[1] - self.embedding if self.weight.ndim == 2 else 0
        fits = self.bias.ndim == 1 and self.weight.shape[:1] == self.bias.shape
        if not fits or self.embedding < 1 or columns < 1 or columns % len(self.branches):
            raise BundleError(
                "the head's weight and bias do not fit its inputs",
                got=f"weight {self.weight.shape} and bias {self.bias.shape} for an embedding of {self.embedding} and "
                f"{len(self.branches)} branches",
                expected="weight (L, D + K·C) and bias (L,)",
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise BundleError("the head holds values that are not finite")

    @property
    def classes(self) -> int:
        """L, the number of labels that it gives."""
        return int(self.bias.size)

    @property
    def inputs(self) -> int:
        """C, the number of labels of each branch."""
        return int((self.weight.shape[1] - self.embedding) // len(self.branches))

    def __call__(
        self, probabilities: Mapping[str, npt.NDArray[Any]], embedding: Embeddings | None = None
    ) -> Probabilities:
        """One batch: branch name -> (B, C) probabilities, and (B, D) embeddings, to (B, L) float32.

        Raises:
            BundleError: a branch or the embedding is missing, or the shapes differ.
        """
        if set(probabilities) != set(self.branches) or embedding is None:
            raise BundleError(
                "the head was given other inputs",
                got=[*sorted(probabilities), *([] if embedding is None else ["embedding"])],
                expected=[*self.branches, "embedding"],
            )
        shapes = {name: probabilities[name].shape for name in self.branches} | {"embedding": embedding.shape}
        expected = {name: (len(embedding), self.inputs) for name in self.branches}
        if shapes != expected | {"embedding": (len(embedding), self.embedding)}:
            raise BundleError(
                "the inputs do not fit the head",
                got=shapes,
                expected=f"(B, {self.embedding}) of the embedding and (B, {self.inputs}) of each branch",
            )
        rows = head_inputs([probabilities[name] for name in self.branches], embedding)
        return softmax(rows @ self.weight.T + self.bias).astype(np.float32)


def head_inputs(probabilities: list[npt.NDArray[Any]], embedding: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """What a head weighs, (B, D + K·C), of the branches' probabilities in order and the embeddings of B clips."""
    logarithms = [np.log(np.maximum(rows.astype(np.float64), FLOOR)) for rows in probabilities]
    return np.concatenate([embedding.astype(np.float64), *logarithms], axis=1)


def save_answer(answer: Fusion | Head, path: Path) -> None:
    """Write a fusion, or a head: the same arrays `weight`, `bias` and `branches`, and `embedding`, its D."""
    if isinstance(answer, Fusion):
        save_fusion(answer, path)
        return
    branches = np.array(answer.branches, dtype=np.str_)
    size = np.array(answer.embedding, dtype=np.int64)
    write_arrays(path, {"weight": answer.weight, "bias": answer.bias, "branches": branches, EMBEDDING: size})


def load_answer(path: Path) -> Fusion | Head:
    """Read what `save_answer` wrote, without pickle.

    Raises:
        BundleError: the file is damaged, or its arrays make neither.
    """
    arrays = read_arrays(path, frozenset({"weight", "bias", "branches"}), frozenset({EMBEDDING}))
    if EMBEDDING not in arrays:
        return load_fusion(path)
    found = {name: (array.dtype.kind, array.ndim) for name, array in arrays.items()}
    if found != {"weight": ("f", 2), "bias": ("f", 1), "branches": ("U", 1), EMBEDDING: ("i", 0)}:
        raise BundleError(
            f"{path} does not hold a head",
            got={name: f"{array.dtype} {array.shape}" for name, array in arrays.items()},
            expected="float weight, float bias, a list of branch names and the size of an embedding",
        )
    branches = tuple(str(name) for name in arrays["branches"])
    return Head(arrays["weight"], arrays["bias"], branches, int(arrays[EMBEDDING]))
