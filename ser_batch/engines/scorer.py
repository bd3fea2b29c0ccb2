"""From waveforms to checked probabilities: the branches in an engine, then the fusion in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Embeddings, Probabilities
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import Waveform
from ser_batch.engines.protocol import Engine
from ser_batch.errors import EngineError, InputError

SUM_TOLERANCE = 1e-3
"""How far a row may be from summing to 1. Every engine computes its softmax in float32, where 1e-6 is usual."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities of one batch."""

    fused: Probabilities
    """(B, C) float32"""
    branches: dict[str, Probabilities]
    """Branch name -> (B, C) float32, in the order of the manifest."""
    embedding: Embeddings | None = None
    """(B, D) float32, where the scorer was asked for it."""


class Scorer:
    """A bundle in an engine: (B, samples) waveforms to (B, C) probabilities.

    A clip scores the same alone and in any batch. Whoever opened the engine closes it.

    Args:
        embedding: whether scores hold the embedding; the engine must have been opened for it.

    Raises:
        BundleError: the bundle has no embedding, and it is asked for.
    """

    def __init__(self, bundle: Bundle, engine: Engine, *, embedding: bool = False) -> None:
        self.bundle = bundle
        self.embedding = bundle.embedding() if embedding else None
        self.engine = engine
        self.labels = bundle.labels
        self._names = tuple(branch.name for branch in bundle.manifest.branches)

    def score(self, waveform: Waveform) -> Scores:
        """Score (B, samples) float32 in [-1, 1] at the clip rule's rate; B may be 0.

        Raises:
            InputError: another shape or type, or samples that are not finite.
            EngineError: the engine failed, or gave something other than one distribution per clip and branch.
        """
        self._check_waveform(waveform)
        if len(waveform) == 0:
            # Not every runtime takes an empty batch, and none is needed for the answer.
            empty = np.empty((0, len(self.labels)), dtype=np.float32)
            embedding = None if self.embedding is None else np.empty((0, self.embedding.size), dtype=np.float32)
            of_branch = np.empty((0, len(self.bundle.branch_labels)), dtype=np.float32)
            return Scores(empty, dict.fromkeys(self._names, of_branch), embedding)
        found = self.engine.run(np.ascontiguousarray(waveform))
        if set(found) - {EMBEDDING} != set(self._names):
            raise EngineError(
                f"{self.engine.name} returned other branches",
                got=sorted(found),
                expected=list(self._names),
            )
        branches = {name: self._check_rows(name, found[name], len(waveform)) for name in self._names}
        embedding = None
        if self.embedding is not None or self.bundle.answers_by_embedding:
            embedding = self._check_embedding(found.get(EMBEDDING), len(waveform))
        fused = self.bundle.fusion(branches, embedding)
        return Scores(fused, branches, embedding if self.embedding is not None else None)

    def _check_waveform(self, waveform: Waveform) -> None:
        samples = self.bundle.manifest.clip.samples
        if waveform.ndim != 2 or waveform.shape[1] != samples or waveform.dtype != np.float32:
            raise InputError(
                "waveforms do not fit the bundle",
                got=f"{waveform.shape} {waveform.dtype}",
                expected=f"(B, {samples}) float32",
            )
        finite = np.isfinite(waveform).all(axis=1)
        if not finite.all():
            raise InputError("a waveform holds samples that are not finite", got=f"clip {int(finite.argmin())}")

    def _check_rows(self, name: str, rows: npt.NDArray[np.float32], batch: int) -> Probabilities:
        where = f"branch {name} on {self.engine.name}"
        _check_array(where, rows, (batch, len(self.bundle.branch_labels)))
        proper = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE)
        if not proper.all():
            clip = int(proper.argmin())
            raise EngineError(
                f"{where} returned something other than probabilities",
                got=f"clip {clip}: {rows[clip]}",
                expected="values of at least 0 that sum to 1",
            )
        return rows

    def _check_embedding(self, rows: Embeddings | None, batch: int) -> Embeddings:
        if rows is None:
            raise EngineError(f"{self.engine.name} was opened without the embedding", remedy="Open it with embedding.")
        _check_array(
            f"the branch with the embedding on {self.engine.name}", rows, (batch, self.bundle.embedding().size)
        )
        return rows


def _check_array(where: str, rows: npt.NDArray[np.float32], expected: tuple[int, int]) -> None:
    if rows.shape != expected or rows.dtype != np.float32:
        raise EngineError(
            f"{where} returned another array",
            got=f"{rows.shape} {rows.dtype}",
            expected=f"{expected} float32",
        )
    if not np.isfinite(rows).all():
        clip = int(np.isfinite(rows).all(axis=1).argmin())
        raise EngineError(f"{where} returned values that are not finite", got=f"clip {clip}: {rows[clip]}")
