"""ONNX Runtime with its inputs and outputs bound to the device, so that copies and computation are timed apart.

The serving engine hands numpy arrays to ONNX Runtime, which copies within the call; timed so, a GPU's computation
cannot be told from its copies (onnxruntime#8166). The same code runs on the CPU, where the copies are memory copies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ser_batch.clip import Waveform
from ser_batch.errors import EngineError
from ser_batch.model.bundle import Bundle

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class BoundEngine:
    """Every branch of a bundle in ONNX Runtime, bound.

    Args:
        device: "cpu" or "cuda".
        tf32: whether the CUDA provider may round "fp32" products to TF32, as it does unless told otherwise.

    Raises:
        EngineError: ONNX Runtime is missing, lacks the device, or falls back from it.
    """

    name = "onnxruntime bound"

    def __init__(self, bundle: Bundle, device: str = "cpu", tf32: bool = True) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError("ONNX Runtime cannot be imported", got=error) from error
        if _PROVIDERS.get(device) not in onnxruntime.get_available_providers():
            available = onnxruntime.get_available_providers()
            raise EngineError(f"this ONNX Runtime cannot run on {device}", got=available)
        self._ort, self.device = onnxruntime, device
        self.precision = "tf32" if device == "cuda" and tf32 else "fp32"
        self._branches = bundle.manifest.branches
        self._timings: dict[str, float] = {}
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            # CUDA's libraries come with torch's or NVIDIA's wheels, not with the system.
            onnxruntime.preload_dlls()
        options = {"use_tf32": str(int(tf32))} if device == "cuda" else {}
        self._sessions = {b.name: self._open(str(bundle.path(b.file)), options) for b in self._branches}

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities."""
        started = time.perf_counter()
        try:
            value = self._ort.OrtValue.ortvalue_from_numpy(waveform, self.device, 0)
            copied = time.perf_counter()
            bindings = {}
            for branch in self._branches:
                binding = bindings[branch.name] = self._sessions[branch.name].io_binding()
                binding.bind_ortvalue_input(branch.input, value)
                binding.bind_output(branch.output, self.device)
                self._sessions[branch.name].run_with_iobinding(binding)
                binding.synchronize_outputs()
            computed = time.perf_counter()
            rows = {name: binding.get_outputs()[0].numpy() for name, binding in bindings.items()}
        except Exception as error:
            # ONNX Runtime's exceptions share no public class; out of memory on a GPU is among them.
            raise EngineError(f"{self.name} failed", got=str(error).strip().partition("\n")[0]) from error
        ended = time.perf_counter()
        self._timings = {
            "host_to_device": copied - started,
            "compute": computed - copied,
            "device_to_host": ended - computed,
        }
        return rows

    def timings(self) -> Mapping[str, float]:
        """Stage -> seconds of the last run."""
        return self._timings

    def close(self) -> None:
        """Release the sessions."""
        self._sessions.clear()

    def _open(self, path: str, options: dict[str, str]):  # type: ignore[no-untyped-def]
        provider = _PROVIDERS[self.device]
        session_options = self._ort.SessionOptions()
        session_options.log_severity_level = 3
        try:
            session = self._ort.InferenceSession(path, session_options, providers=[(provider, options)])
        except Exception as error:
            raise EngineError(f"ONNX Runtime refuses {path}", got=error) from error
        if session.get_providers()[0] != provider:
            raise EngineError("ONNX Runtime fell back", got=session.get_providers(), expected=provider)
        return session
