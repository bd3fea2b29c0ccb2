"""How far an engine is from what torch gave: the accuracy side of precision, on the bundle's reference clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.backends import open_backend
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.scorer import Scorer


@dataclass(frozen=True)
class Agreement:
    """Fused probabilities against the bundle's reference."""

    clips: int
    max_difference: float
    """Largest |Δp|."""
    flips: int
    """Clips whose label is another one."""


def agreement(bundle: Bundle, backends: tuple[str, ...], threads: int | None = None) -> dict[str, Agreement]:
    """Map "<engine> <precision>" to its agreement, for each backend."""
    reference = bundle.reference()
    found = {}
    for backend in backends:
        engine = open_backend(bundle, backend, threads)
        try:
            fused = Scorer(bundle, engine).score(reference.waveform).fused
        finally:
            engine.close()
        flips = int((fused.argmax(axis=1) != reference.fused.argmax(axis=1)).sum())
        difference = float(np.abs(fused - reference.fused).max())
        found[f"{engine.name} {engine.precision}"] = Agreement(len(fused), difference, flips)
    return found
