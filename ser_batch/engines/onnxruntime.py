"""ONNX Runtime on CPUs: the portable backend, and the one every other is compared with."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Waveform
from ser_batch.engines.lanes import Lanes, layout
from ser_batch.engines.onnxruntime_session import import_runtime, installed_versions, open_session
from ser_batch.errors import EngineError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What the engine can be opened in, the default first; all but fp32 need a graph that `ser-export quantize` made."""


def unavailable() -> str | None:
    """Why ONNX Runtime cannot run here; None if it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; install it with pip install 'ser-batch[cpu]'"
    return None


def unsupported(precision: str) -> str | None:
    """Why this machine cannot run one of `PRECISIONS`; None if it can."""
    if precision in ("fp16", "bf16"):
        # Given such a graph, it widens fp16 to fp32 around every node (1.32 crashed doing so) and refuses bf16.
        return f"ONNX Runtime's CPU provider has no {precision} arithmetic"
    return None


def version() -> str:
    """The version of ONNX Runtime that is installed."""
    if found := installed_versions():
        return next(iter(found.values()))
    return str(import_runtime("cpu").__version__)


def open_bundle(bundle: Bundle, threads: int | None, precision: str, batch: int = 1) -> OnnxRuntimeEngine:
    """Load `bundle` on the CPU."""
    if precision not in PRECISIONS:
        raise EngineError("ONNX Runtime has no such precision here", got=precision, expected=" or ".join(PRECISIONS))
    return OnnxRuntimeEngine(bundle, threads=threads, precision=precision, batch=batch)


class OnnxRuntimeEngine:
    """One session a branch; large batches are shared out to lanes.

    Args:
        threads: CPU threads; None: one a CPU.
        precision: one of `PRECISIONS`.
        batch: clips that will usually be scored together, which settles the lanes (see `ser_batch.engines.lanes`).

    Raises:
        BundleError: the bundle has no graphs in the precision.
        EngineError: see `open_session`, or the CPU provider lacks the precision.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int | None = None, precision: str = "fp32", batch: int = 1) -> None:
        if (reason := unsupported(precision)) is not None:
            raise EngineError(f"ONNX Runtime cannot run in {precision}: {reason}", remedy="Ask for --precision fp32.")
        self.precision = precision
        self._branches = bundle.manifest.branches
        shared = layout(batch, threads)
        within = shared.threads if shared.lanes > 1 else threads
        self._sessions = {
            branch.name: open_session(bundle, branch, precision=precision, threads=within) for branch in self._branches
        }
        # A session may be run from several threads at once, and holds nothing of a run.
        self._lanes = Lanes([self._sessions] * shared.lanes)

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._sessions:
            raise EngineError("this engine has been closed")
        return self._lanes.run(self._score, waveform)

    def close(self) -> None:
        """Release the sessions."""
        self._lanes.close()
        self._sessions.clear()

    def _score(self, sessions: dict[str, Any], waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        results = {}
        for branch in self._branches:
            try:
                (rows,) = sessions[branch.name].run([branch.output], {branch.input: waveform})
            except Exception as error:
                raise EngineError(f"ONNX Runtime failed on branch {branch.name}", got=error) from error
            results[branch.name] = rows
        return results
