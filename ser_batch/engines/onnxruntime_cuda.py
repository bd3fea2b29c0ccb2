"""ONNX Runtime on an NVIDIA GPU with inputs and outputs bound to its memory: the second GPU backend, for any GPU.

Handed numpy arrays, ONNX Runtime copies within the call, and once for each branch (onnxruntime#8166). Bound, one copy
of the waveforms feeds every branch, and copies can be timed apart from computation. The same code runs on a CPU, where
the copies are memory copies: so it is tested, and a GPU's measurement rehearsed, without one.
"""

from __future__ import annotations

import importlib.util
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
from ser_batch.clips import Waveform
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.onnxruntime import import_runtime, open_session
from ser_batch.engines.protocol import output_columns, wanted_outputs
from ser_batch.errors import EngineError
from ser_batch.machine import package_version

PRECISIONS = ("fp32", "fp16")
"""What the engine can be opened in, the default first: those the CUDA provider computes in."""

_GPU_PACKAGE = "onnxruntime-gpu"
_CACHED_SIZES = 4
"""Batch sizes whose buffers are cached. A run has two: its own, and that of its last batch."""


def unavailable() -> str | None:
    """Why ONNX Runtime cannot run on a GPU here; None if it can."""
    if importlib.util.find_spec("onnxruntime") is None or package_version(_GPU_PACKAGE) is None:
        return (
            "onnxruntime-gpu is not installed; install it, in place of onnxruntime, with pip install 'ser-batch[gpu]'"
        )
    return no_gpu()


def unsupported(precision: str) -> str | None:
    """Why this machine cannot run one of `PRECISIONS`; None if it can."""
    return None


def version() -> str:
    """The version of ONNX Runtime that is installed."""
    return str(package_version(_GPU_PACKAGE))


def open_bundle(
    bundle: Bundle, threads: int | None, precision: str, batch: int = 1, embedding: bool = False
) -> BoundEngine:
    """Load `bundle` on the first GPU; `threads` and `batch` matter on CPUs alone."""
    return BoundEngine(bundle, precision=precision, embedding=embedding)


@dataclass
class _Bound:
    """The memory of one batch size on the device, bound to every branch's session."""

    waveform: Any
    rows: dict[str, Any]
    bindings: dict[str, Any]


class BoundEngine:
    """One session per branch, with its inputs and outputs bound to the device's memory.

    Args:
        device: "cuda" or "cpu".
        tf32: whether the CUDA provider may round the products of fp32 to TF32, as is its default; the front-ends' too.
        embedding: whether results hold the embedding, too; where not, its output is not bound, and not copied.

    Raises:
        BundleError: the bundle has no graphs in the precision.
        EngineError: see `open_session`.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cuda",
        precision: str = "fp32",
        tf32: bool = False,
        embedding: bool = False,
    ) -> None:
        self._ort = import_runtime(device)
        self.device = device
        self.name = "onnxruntime-cuda" if device == "cuda" else "onnxruntime bound"
        self.precision = "tf32" if (device, precision, tf32) == ("cuda", "fp32", True) else precision
        self._samples = bundle.manifest.clip.samples
        self._branches = bundle.manifest.branches
        self._wanted = {branch.name: wanted_outputs(bundle, branch, embedding) for branch in self._branches}
        self._columns = {branch.name: output_columns(branch, bundle) for branch in self._branches}
        self._timings: dict[str, float] = {}
        self._bound: OrderedDict[int, _Bound] = OrderedDict()
        options = {"use_tf32": str(int(tf32))} if device == "cuda" else {}
        self._sessions = {
            branch.name: open_session(bundle, branch, device=device, precision=precision, options=options)
            for branch in self._branches
        }

    def run(self, waveform: Waveform) -> dict[str, Probabilities]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._sessions:
            raise EngineError("this engine has been closed")
        started = time.perf_counter()
        try:
            bound = self._bind(len(waveform))
            bound.waveform.update_inplace(np.ascontiguousarray(waveform))
            copied = time.perf_counter()
            for branch in self._branches:
                self._sessions[branch.name].run_with_iobinding(bound.bindings[branch.name])
                bound.bindings[branch.name].synchronize_outputs()
            computed = time.perf_counter()
            # Copied even on a CPU, where numpy would share memory that the next run writes to.
            results = {name: np.array(value.numpy()) for name, value in bound.rows.items()}
        except Exception as error:
            # ONNX Runtime's exceptions share no public class; out of memory on a GPU is among them.
            raise EngineError(
                f"{self.name} failed on {len(waveform)} clips",
                got=str(error).strip().partition("\n")[0],
                remedy="If the GPU's memory is full, take a smaller --batch-size.",
            ) from error
        self._timings = {
            "host_to_device": copied - started,
            "compute": computed - copied,
            "device_to_host": time.perf_counter() - computed,
        }
        return results

    def timings(self) -> Mapping[str, float]:
        """Stage -> seconds of the last run: host_to_device, compute, device_to_host."""
        return self._timings

    def close(self) -> None:
        """Release sessions and memory."""
        self._bound.clear()
        self._sessions.clear()

    def _bind(self, batch: int) -> _Bound:
        """The memory for a batch size; the size that was used least recently makes room for a new one."""
        if batch in self._bound:
            self._bound.move_to_end(batch)
            return self._bound[batch]
        while len(self._bound) >= _CACHED_SIZES:
            self._bound.popitem(last=False)
        waveform = self._allocate(batch, self._samples)
        rows, bindings = {}, {}
        for branch in self._branches:
            binding = bindings[branch.name] = self._sessions[branch.name].io_binding()
            binding.bind_ortvalue_input(branch.input, waveform)
            for name, output in self._wanted[branch.name].items():
                rows[name] = self._allocate(batch, self._columns[branch.name][output])
                binding.bind_ortvalue_output(output, rows[name])
        self._bound[batch] = _Bound(waveform, rows, bindings)
        return self._bound[batch]

    def _allocate(self, batch: int, columns: int) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type([batch, columns], np.float32, self.device, 0)
