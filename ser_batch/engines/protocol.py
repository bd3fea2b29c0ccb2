"""What every runtime offers, how one is opened by name, and the checks that are the same for all of them.

A backend is a module that is imported only when it is asked for. It offers

    PRECISIONS                                   what it can be opened in, the default first
    unavailable() -> str | None                  why it cannot run here (None: it can), without importing the runtime
    unsupported(precision) -> str | None         why this machine cannot run that precision; may import the runtime
    version() -> str                             of the runtime that is installed
    open_bundle(bundle, threads, precision, batch, embedding)  -> Engine

To add one, write the module and add its line to `BACKENDS`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
from ser_batch.bundle.manifest import EMBEDDING, Branch
from ser_batch.clips import Waveform
from ser_batch.errors import EngineError
from ser_batch.machine import cpu_limit

BACKENDS: dict[str, str] = {
    "onnxruntime": "ser_batch.engines.onnxruntime",
    "openvino": "ser_batch.engines.openvino",
    "trt": "ser_batch.engines.tensorrt.engine",
    "onnxruntime-cuda": "ser_batch.engines.onnxruntime_cuda",
}
"""Backend -> module, the portable default first."""
LABELS_KEY = "labels"
"""Key of the ONNX metadata_props under which an exported graph states its labels, as a JSON list."""
FRONTEND_KEY = "frontend_output"
"""Key under which it names the tensor where its front-end ends: all before it stays in fp32 at every precision."""


class EngineIdentity(Protocol):
    """What of an engine is written into the rows that it makes."""

    @property
    def name(self) -> str:
        """The runtime, as `--backend` names it: "onnxruntime"."""

    @property
    def precision(self) -> str:
        """The arithmetic: "fp32"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu"."""


class Engine(EngineIdentity, Protocol):
    """All branches of one bundle, loaded in one runtime."""

    def run(self, waveform: Waveform) -> dict[str, Probabilities]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1.

        An engine that was opened for it also has `EMBEDDING` -> (B, D). A clip's rows do not depend on the others in
        its batch.

        Raises:
            EngineError: the runtime failed.
        """

    def close(self) -> None:
        """Release the runtime's memory; `run` may not be called again."""


def available_backends() -> dict[str, str | None]:
    """Every backend and why it cannot run here, with the remedy; None where it can."""
    return {name: _module(name).unavailable() for name in BACKENDS}


def precisions(backend: str) -> dict[str, str | None]:
    """Every precision of an installed backend, its default first, and why this machine cannot run it, or None."""
    module = _installed(backend)
    return {precision: module.unsupported(precision) for precision in module.PRECISIONS}


def backend_version(backend: str) -> str:
    """The version of an installed backend's runtime."""
    return str(_installed(backend).version())


def open_engine(
    bundle: Bundle,
    backend: str,
    threads: int | None = None,
    precision: str | None = None,
    batch: int = 1,
    *,
    embedding: bool = False,
) -> Engine:
    """Load the branches of `bundle` in a runtime.

    Args:
        backend: a name of `BACKENDS`; `ser_batch.verification.auto.choose` finds the best one.
        threads: CPU threads; None leaves the choice to the runtime, within the quota of a container.
        precision: of the arithmetic ("fp32", "bf16"); None: the backend's default.
        batch: clips that will usually be scored together. Any number may be; on a CPU, an engine opened for a large
            batch scores it faster, and a single clip slower.
        embedding: whether its results hold the embedding, too; where it is not asked for it costs nothing.

    Raises:
        BundleError: the bundle has no graph in the precision, or no embedding and one is asked for.
        EngineError: no such backend or precision, it is not installed, or the runtime refuses a branch.
    """
    if threads is not None and threads < 1:
        raise EngineError("an engine needs at least one thread", got=threads)
    if batch < 1:
        raise EngineError("an engine scores at least one clip at a time", got=batch)
    module = _installed(backend)
    precision = precision or module.PRECISIONS[0]
    if precision not in module.PRECISIONS:
        raise EngineError(
            f"backend {backend} has no such precision", got=precision, expected=" or ".join(module.PRECISIONS)
        )
    if embedding:
        bundle.embedding()
    engine: Engine = module.open_bundle(bundle, threads or cpu_limit(), precision, batch, embedding)
    return engine


def _installed(backend: str) -> ModuleType:
    if backend not in BACKENDS:
        raise EngineError(f"there is no backend {backend!r}", expected=f"auto, {_listing()}")
    module = _module(backend)
    if (reason := module.unavailable()) is not None:
        raise EngineError(f"backend {backend} cannot run here: {reason}", got=_listing())
    return module


def _listing() -> str:
    return ", ".join(
        f"{name} ({'not available' if reason else 'available'})" for name, reason in available_backends().items()
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(BACKENDS[name])


Tensor = tuple[str, Sequence[Any], str]
"""Name, shape and type ("float32") of a graph's input or output; a free dimension is any non-integer."""


def wanted_outputs(bundle: Bundle, branch: Branch, embedding: bool) -> dict[str, str]:
    """What is asked of a branch's graph: the name it has in an engine's results -> the graph's output.

    The embedding is where the caller asks for it, and where the bundle's answer is made of it.
    """
    wanted = {branch.name: branch.output}
    if (embedding or bundle.answers_by_embedding) and branch.embedding is not None:
        wanted[EMBEDDING] = branch.embedding.output
    return wanted


def output_columns(branch: Branch, bundle: Bundle) -> dict[str, int]:
    """Every output that a branch's graph should have -> its second dimension."""
    columns = {branch.output: len(bundle.branch_labels)}
    if branch.embedding is not None:
        columns[branch.embedding.output] = branch.embedding.size
    return columns


def check_tensors(branch: Branch, inputs: Sequence[Tensor], outputs: Sequence[Tensor], bundle: Bundle) -> None:
    """Check that a graph has exactly the inputs and outputs, by name, shape and type, that its bundle states.

    Raises:
        EngineError: the graph has other tensors.
    """
    samples = {branch.input: bundle.manifest.clip.samples}
    for kind, tensors, columns in (("input", inputs, samples), ("output", outputs, output_columns(branch, bundle))):
        if not _fits(tensors, columns):
            raise EngineError(
                f"{bundle.path(branch.file)} does not have the {kind} that its bundle states",
                got=", ".join(f"{found} {list(shape)} {dtype}" for found, shape, dtype in tensors) or "none",
                expected=", ".join(f"{name} ['batch', {size}] float32" for name, size in columns.items()),
            )


def _fits(tensors: Sequence[Tensor], columns: Mapping[str, int]) -> bool:
    return {name for name, _, _ in tensors} == set(columns) and all(
        len(shape) == 2 and not isinstance(shape[0], int) and shape[1] == columns[name] and dtype == "float32"
        for name, shape, dtype in tensors
    )


def check_labels(branch: Branch, raw: str | None, bundle: Bundle) -> None:
    """Check the labels that an ONNX graph states against the manifest's, order included; None: it has none.

    Raises:
        EngineError: they differ, so every probability would be read under a wrong label.
    """
    if raw is None:
        return
    try:
        labels = json.loads(raw)
    except ValueError:
        labels = raw
    if labels != list(bundle.branch_labels):
        permuted = isinstance(labels, list) and sorted(map(str, labels)) == sorted(bundle.branch_labels)
        raise EngineError(
            f"{bundle.path(branch.file)} has {'permuted' if permuted else 'other'} labels",
            got=labels,
            expected=f"{list(bundle.branch_labels)} as in the manifest",
            remedy="Export the bundle again; do not edit its labels by hand.",
        )
