"""From waveforms to checked probabilities: the branches in an engine, then the fusion in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
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


class Scorer:
    """A bundle in an engine: (B, samples) waveforms to (B, C) probabilities.

    A clip scores the same alone and in any batch. Whoever opened the engine closes it.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
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
            return Scores(empty, dict.fromkeys(self._names, empty))
        branches = self.engine.run(np.ascontiguousarray(waveform))
        if set(branches) != set(self._names):
            raise EngineError(
                f"{self.engine.name} returned other branches",
                got=sorted(branches),
                expected=list(self._names),
            )
        checked = {name: self._check_rows(name, branches[name], len(waveform)) for name in self._names}
        return Scores(self.bundle.fusion(checked), checked)

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
        expected = (batch, len(self.labels))
        if rows.shape != expected or rows.dtype != np.float32:
            raise EngineError(
                f"{where} returned another array",
                got=f"{rows.shape} {rows.dtype}",
                expected=f"{expected} float32",
            )
        if not np.isfinite(rows).all():
            clip = int(np.isfinite(rows).all(axis=1).argmin())
            raise EngineError(f"{where} returned values that are not finite", got=f"clip {clip}: {rows[clip]}")
        proper = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE)
        if not proper.all():
            clip = int(proper.argmin())
            raise EngineError(
                f"{where} returned something other than probabilities",
                got=f"clip {clip}: {rows[clip]}",
                expected="values of at least 0 that sum to 1",
            )
        return rows
