"""One branch's graph in an ONNX Runtime session, on a CPU or a GPU, never silently on another device than asked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Branch, Bundle
from ser_batch.engines.protocol import LABELS_KEY, check_labels, check_tensor
from ser_batch.errors import EngineError

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that bring the module `onnxruntime`."""
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_EXTRAS = {"cpu": "cpu", "cuda": "gpu"}
_ERRORS_ONLY = 3


def installed_versions() -> dict[str, str]:
    """Distribution of ONNX Runtime → version, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = installed_version(package)
        except PackageNotFoundError:
            continue
    return found


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
    samples, classes = bundle.manifest.clip.samples, len(bundle.labels)
    check_tensor(branch, "input", _tensors(session.get_inputs()), columns=samples, bundle=bundle)
    check_tensor(branch, "output", _tensors(session.get_outputs()), columns=classes, bundle=bundle)
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
