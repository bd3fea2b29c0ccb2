"""ONNX Runtime on CPUs: the portable backend, and the one every other is compared with.

A session is never silently on another device than the one that was asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
from ser_batch.bundle.manifest import Branch
from ser_batch.clips import Waveform
from ser_batch.engines.protocol import LABELS_KEY, check_labels, check_tensors, wanted_outputs
from ser_batch.engines.streams import Streams, layout
from ser_batch.errors import EngineError
from ser_batch.machine import package_version

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What the engine can be opened in, the default first; all but fp32 need a graph that `ser-export quantize` made."""
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
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
    found = (package_version(package) for package in PACKAGES)
    return next((each for each in found if each is not None), None) or str(import_runtime("cpu").__version__)


def open_bundle(
    bundle: Bundle, threads: int | None, precision: str, batch: int = 1, embedding: bool = False
) -> OnnxRuntimeEngine:
    """Load `bundle` on the CPU."""
    if precision not in PRECISIONS:
        raise EngineError("ONNX Runtime has no such precision here", got=precision, expected=" or ".join(PRECISIONS))
    return OnnxRuntimeEngine(bundle, threads=threads, precision=precision, batch=batch, embedding=embedding)


class OnnxRuntimeEngine:
    """One session per branch; large batches are shared out to streams.

    Args:
        threads: CPU threads; None: one per CPU.
        precision: one of `PRECISIONS`.
        batch: clips that will usually be scored together; it decides the streams (see `ser_batch.engines.streams`).
        embedding: whether results hold the embedding, too.

    Raises:
        BundleError: the bundle has no graphs in the precision.
        EngineError: see `open_session`, or the CPU provider lacks the precision.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        precision: str = "fp32",
        batch: int = 1,
        embedding: bool = False,
    ) -> None:
        if (reason := unsupported(precision)) is not None:
            raise EngineError(f"ONNX Runtime cannot run in {precision}: {reason}", remedy="Ask for --precision fp32.")
        self.precision = precision
        self._branches = bundle.manifest.branches
        self._wanted = {branch.name: wanted_outputs(bundle, branch, embedding) for branch in self._branches}
        shared = layout(batch, threads)
        within = shared.threads if shared.streams > 1 else threads
        opened = partial(open_session, bundle, precision=precision, threads=within)
        self._sessions = {branch.name: opened(branch) for branch in self._branches}
        # A session may be run from several threads at once, and holds nothing of a run.
        self._streams = Streams([self._sessions] * shared.streams)

    def run(self, waveform: Waveform) -> dict[str, Probabilities]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._sessions:
            raise EngineError("this engine has been closed")
        return self._streams.run(self._score, waveform)

    def close(self) -> None:
        """Release the sessions."""
        self._streams.close()
        self._sessions.clear()

    def _score(self, sessions: dict[str, Any], waveform: Waveform) -> dict[str, Probabilities]:
        results: dict[str, Probabilities] = {}
        for branch in self._branches:
            try:
                wanted = self._wanted[branch.name]
                rows = sessions[branch.name].run([*wanted.values()], {branch.input: waveform})
            except Exception as error:
                raise EngineError(f"ONNX Runtime failed on branch {branch.name}", got=error) from error
            results.update(zip(wanted, rows, strict=True))
        return results


def import_runtime(device: str) -> Any:
    """The module `onnxruntime`, which must have a provider for `device`.

    Raises:
        EngineError: it cannot be imported, or lacks the device.
    """
    # Imported here: it takes a fifth of a second, which `--help` and `info` need not wait for.
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise EngineError(
            "ONNX Runtime cannot be imported",
            got=error,
            remedy=f"Install it: pip install 'ser-batch[{_EXTRAS.get(device, 'cpu')}]'.",
        ) from error
    if device not in _PROVIDERS:
        raise EngineError("ONNX Runtime has no such device here", got=device, expected=" or ".join(_PROVIDERS))
    if _PROVIDERS[device] not in ort.get_available_providers():
        raise EngineError(
            f"this ONNX Runtime cannot run on {device}",
            got=ort.get_available_providers(),
            expected=_PROVIDERS[device],
            remedy=f"Install that build alone: pip install 'ser-batch[{_EXTRAS[device]}]'.",
        )
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        # CUDA's libraries come with NVIDIA's wheels, where nothing else would find them.
        ort.preload_dlls()
    return ort


def open_session(
    bundle: Bundle,
    branch: Branch,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> Any:
    """A session for a branch, whose tensors and labels are those of the bundle.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads within an operator; None lets ONNX Runtime choose.
        options: of the device's provider.

    Raises:
        BundleError: the bundle has no graph in the precision.
        EngineError: ONNX Runtime is missing, lacks the device or fell back from it, refuses the graph, or finds
            other tensors or labels in it.
    """
    session = start_session(bundle.graph(branch, precision), device=device, threads=threads, options=options)
    check_tensors(branch, _tensors(session.get_inputs()), _tensors(session.get_outputs()), bundle)
    check_labels(branch, session.get_modelmeta().custom_metadata_map.get(LABELS_KEY), bundle)
    return session


def start_session(
    path: Path, *, device: str = "cpu", threads: int | None = None, options: Mapping[str, str] | None = None
) -> Any:
    """A session for the graph at `path`, whatever it computes; arguments as those of `open_session`.

    Raises:
        EngineError: ONNX Runtime is missing, lacks the device or fell back from it, or refuses the graph.
    """
    ort, provider = import_runtime(device), _PROVIDERS[device]
    session_options = ort.SessionOptions()
    session_options.log_severity_level = _ERRORS_ONLY
    session_options.intra_op_num_threads = threads or 0
    try:
        session = ort.InferenceSession(path, session_options, providers=[(provider, dict(options or {}))])
    except Exception as error:
        # ONNX Runtime's exceptions share no public class.
        raise EngineError(f"ONNX Runtime refuses {path}", got=error) from error
    # A provider whose libraries are missing is dropped with no more than a log line.
    if session.get_providers()[0] != provider:
        raise EngineError(f"ONNX Runtime fell back from {device}", got=session.get_providers(), expected=provider)
    return session


def _tensors(nodes: list[Any]) -> list[tuple[str, list[Any], str]]:
    names = {"tensor(float)": "float32"}
    return [(node.name, list(node.shape), names.get(node.type, node.type)) for node in nodes]
