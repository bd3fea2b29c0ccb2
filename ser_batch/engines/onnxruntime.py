"""ONNX Runtime: the portable backend, and the one every other is compared with."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.clip import Waveform
from ser_batch.engines.lanes import Lanes, layout
from ser_batch.engines.protocol import LABELS_KEY, check_labels, check_tensor
from ser_batch.errors import EngineError
from ser_batch.model.bundle import Branch, Bundle

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What the engine can be opened in, the default first; all but fp32 need a graph that `ser-export quantize` made."""

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that bring the module `onnxruntime`."""
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_EXTRAS = {"cpu": "cpu", "cuda": "gpu"}
_ERRORS_ONLY = 3


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
    for package in _PACKAGES:
        try:
            return installed_version(package)
        except PackageNotFoundError:
            continue
    import onnxruntime as ort

    return str(ort.__version__)


def open_bundle(bundle: Bundle, threads: int | None, precision: str, batch: int = 1) -> OnnxRuntimeEngine:
    """Load `bundle` on the CPU."""
    if precision not in PRECISIONS:
        raise EngineError("ONNX Runtime has no such precision here", got=precision, expected=" or ".join(PRECISIONS))
    return OnnxRuntimeEngine(bundle, threads=threads, precision=precision, batch=batch)


class OnnxRuntimeEngine:
    """One session a branch, on one device; on a CPU, large batches are shared out to lanes.

    Args:
        threads: CPU threads; None: one a CPU.
        device: "cpu" or "cuda".
        precision: one of `PRECISIONS`.
        batch: clips that will usually be scored together, which settles the lanes (see `ser_batch.engines.lanes`).

    Raises:
        BundleError: the bundle has no graphs in the precision.
        EngineError: ONNX Runtime is not installed, lacks the device or fell back from it, refuses a model,
            or a model's tensors or labels are not those of the bundle.
    """

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        batch: int = 1,
    ) -> None:
        if device not in _PROVIDERS:
            raise EngineError("ONNX Runtime has no such device here", got=device, expected=" or ".join(_PROVIDERS))
        if device == "cpu" and (reason := unsupported(precision)) is not None:
            raise EngineError(f"ONNX Runtime cannot run in {precision}: {reason}", remedy="Ask for --precision fp32.")
        self.device, self.precision = device, precision
        self._branches = bundle.manifest.branches
        shared = layout(batch if device == "cpu" else 1, threads)
        within = shared.threads if shared.lanes > 1 else threads
        self._sessions = {
            branch.name: _open_session(bundle, branch, within, device, precision) for branch in self._branches
        }
        # A session may be run from several threads at once, and holds nothing of a run.
        self._lanes = Lanes([self._sessions] * shared.lanes)

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
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


def _open_session(bundle: Bundle, branch: Branch, threads: int | None, device: str, precision: str) -> Any:
    path = bundle.graph(branch, precision)
    # Imported here: it takes a fifth of a second, which `--help` and `info` need not wait for.
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise EngineError(
            "ONNX Runtime cannot be imported", got=error, remedy="Install it: pip install 'ser-batch[cpu]'."
        ) from error
    provider = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise EngineError(
            f"this ONNX Runtime cannot run on {device}",
            got=ort.get_available_providers(),
            expected=provider,
            remedy=f"Install that build alone: pip install 'ser-batch[{_EXTRAS[device]}]'.",
        )
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    try:
        session = ort.InferenceSession(path, options, providers=[provider])
    except Exception as error:
        # ONNX Runtime's exceptions share no public class.
        raise EngineError(f"ONNX Runtime refuses {path}", got=error) from error
    # A provider whose libraries are missing is dropped with no more than a log line.
    if session.get_providers()[0] != provider:
        raise EngineError(f"ONNX Runtime fell back from {device}", got=session.get_providers(), expected=provider)
    samples, classes = bundle.manifest.clip.samples, len(bundle.labels)
    check_tensor(branch, "input", _tensors(session.get_inputs()), columns=samples, bundle=bundle)
    check_tensor(branch, "output", _tensors(session.get_outputs()), columns=classes, bundle=bundle)
    check_labels(branch, session.get_modelmeta().custom_metadata_map.get(LABELS_KEY), bundle)
    return session


def _tensors(nodes: list[Any]) -> list[tuple[str, list[Any], str]]:
    names = {"tensor(float)": "float32"}
    return [(node.name, list(node.shape), names.get(node.type, node.type)) for node in nodes]
