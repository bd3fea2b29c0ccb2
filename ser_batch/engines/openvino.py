"""OpenVINO on CPUs, in fp32, bf16 or int8; in bf16 each branch's front-end stays in fp32.

OpenVINO's own default is bf16 wherever the CPU has it, for the whole graph: a log-mel value of a RAVDESS clip was then
wrong by up to 23 dB. So the precision is always asked for, and checked. OpenVINO 2026.4 has no public way to exempt
operators from it (the `precise_0` mark of older versions is gone), but a graph can be cut in two: the part up to
the tensor that the export names as the front-end's output is compiled in fp32, the rest in bf16. The softmax, alone or
fused with what is before it, OpenVINO computes in fp32. In int8 the graph itself says what is quantised
(`ser-export quantize`); the rest of it runs in bf16 where the CPU has that, but for the front-end, and else in fp32.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
from ser_batch.bundle.manifest import Branch
from ser_batch.clips import Waveform
from ser_batch.engines.openvino_graph import fix_batch, frontend, keep_outputs, network, use_phases, widen_groups
from ser_batch.engines.protocol import FRONTEND_KEY, LABELS_KEY, check_labels, check_tensors, wanted_outputs
from ser_batch.engines.streams import Streams, layout
from ser_batch.errors import EngineError
from ser_batch.machine import package_version

Requests = dict[str, list[Any]]
"""Branch name -> one inference request per stage."""

PRECISIONS = ("fp32", "bf16", "int8")
"""What the engine can be opened in, the default first; int8 needs graphs that `ser-export quantize` made."""

_UNFUSED = {"SNIPPETS_MODE": "DISABLE"}
"""For what runs in fp32: no sum and product fused into one instruction, which rounds once where torch rounds twice.

The log-mel of a pure tone is rounding noise in most bands; fused, it moved by up to 0.1 dB and probabilities of random
weights by 1.4e-4. OpenVINO's own tests use this property, which is not documented; 2025.0 to 2026.4 have it.
"""
MICRO_BATCH = 4
"""Clips of a micro-batch at most; of 2, 4 and 8 the fastest in every precision (docs/benchmarks.md)."""
_REMEDY = "Install it: pip install 'ser-batch[openvino]'."
_METADATA = "framework"
"""Where OpenVINO keeps the metadata_props of an ONNX model."""


def unavailable() -> str | None:
    """Why OpenVINO cannot run here; None if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed; install it with pip install 'ser-batch[openvino]'"
    return None


def unsupported(precision: str) -> str | None:
    """Why this machine cannot run one of `PRECISIONS`; None if it can. Imports OpenVINO."""
    if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this CPU has no bf16 instructions"
    return None


def version() -> str:
    """The version of OpenVINO that is installed."""
    return str(package_version("openvino"))


def open_bundle(
    bundle: Bundle, threads: int | None, precision: str, batch: int = 1, embedding: bool = False
) -> OpenVinoEngine:
    """Load `bundle` on the CPU."""
    return OpenVinoEngine(bundle, threads=threads, precision=precision, batch=batch, embedding=embedding)


class OpenVinoEngine:
    """One compiled graph per branch (two with bf16); a small batch gets every thread, a large one several streams.

    The graphs hold a stream's share of the usual batch, at most `MICRO_BATCH` clips: a batch is cut into micro-batches.

    Args:
        threads: CPU threads; None: one per CPU.
        precision: one of `PRECISIONS`.
        batch: clips that will usually be scored together, which decides the streams (see `ser_batch.engines.streams`).
        embedding: whether results hold the embedding, too; where not, its output is taken off the graph.

    Raises:
        BundleError: (int8) the bundle has no graphs in it.
        EngineError: OpenVINO is not installed, the CPU lacks the precision, OpenVINO refuses a model or changes its
            precision, a model's tensors or labels are not those of the bundle, or (bf16) a model does not say
            where its front-end ends.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        precision: str = "fp32",
        batch: int = 1,
        embedding: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise EngineError("OpenVINO has no such precision here", got=precision, expected=" or ".join(PRECISIONS))
        core = _core()
        if (reason := unsupported(precision)) is not None:
            raise EngineError(f"OpenVINO cannot run in {precision}: {reason}", remedy="Ask for --precision fp32.")
        self.precision = precision
        shared = layout(batch, threads)
        # With one stream nothing runs beside a batch, so latency is what counts.
        hint = {"NUM_STREAMS": shared.streams} if shared.streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        count = {"INFERENCE_NUM_THREADS": shared.streams * shared.threads} if threads or shared.streams > 1 else {}
        self._size = min(max(batch // shared.streams, 1), MICRO_BATCH)
        branches = bundle.manifest.branches
        self._wanted = {branch.name: wanted_outputs(bundle, branch, embedding) for branch in branches}
        stages = {
            branch.name: _compile(
                core, bundle, branch, [*self._wanted[branch.name].values()], precision, self._size, hint | count
            )
            for branch in branches
        }
        self._stages: dict[str, list[Any]] = stages
        if shared.streams > 1:
            _prime(core)
        self._streams = Streams([_requests(stages) for _ in range(shared.streams)], self._size)

    def run(self, waveform: Waveform) -> dict[str, Probabilities]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._stages:
            raise EngineError("this engine has been closed")
        return self._streams.run(self._score, waveform)

    def close(self) -> None:
        """Release the compiled graphs."""
        self._streams.close()
        self._stages.clear()

    def _score(self, requests: Requests, waveform: Waveform) -> dict[str, Probabilities]:
        """The clips of one stream, padded with copies of the last clip to whole micro-batches."""
        count = len(waveform)
        if missing := -count % self._size:
            waveform = np.concatenate([waveform, np.repeat(waveform[-1:], missing, axis=0)])
        found = [_infer(requests, clips, self._wanted) for clips in np.split(waveform, len(waveform) // self._size)]
        return {name: np.concatenate([rows[name] for rows in found])[:count] for name in found[0]}


def _core() -> Any:
    # Imported here: it takes half a second, which `--help` and `info` need not wait for.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing OpenVINO would report it
    try:
        import openvino
    except ImportError as error:
        raise EngineError("OpenVINO cannot be imported", got=error, remedy=_REMEDY) from error
    return openvino.Core()


def _compile(
    core: Any,
    bundle: Bundle,
    branch: Branch,
    wanted: list[str],
    precision: str,
    size: int,
    settings: dict[str, Any],
) -> list[Any]:
    # OpenVINO makes bf16 of the fp32 graph by itself.
    path = bundle.graph(branch, "int8" if precision == "int8" else "fp32")
    try:
        model = core.read_model(path)
    except Exception as error:
        raise EngineError(f"OpenVINO refuses {path}", got=_first_line(error)) from error
    check_tensors(branch, _tensors(model.inputs), _tensors(model.outputs), bundle)
    check_labels(branch, _metadata(model, LABELS_KEY), bundle)
    if precision == "fp32" or unsupported("bf16"):
        keep_outputs(model, wanted)
        use_phases(model)
        return [_compile_in(core, model, "f32", size, settings, path)]
    boundary = _metadata(model, FRONTEND_KEY)
    if boundary is None:
        raise EngineError(
            f"{path} does not say where its front-end ends, which {precision} must not touch",
            remedy="Export the bundle again, or ask for --precision fp32.",
        )
    # Each part is cut from a graph of its own: cutting the network loose changes the graph.
    front = frontend(model, boundary, path)
    rest = network(keep_outputs(core.read_model(path), wanted), boundary, path)
    use_phases(front)
    widen_groups(rest)
    return [
        _compile_in(core, front, "f32", size, settings, path),
        _compile_in(core, rest, "bf16", size, settings, path),
    ]


def _compile_in(core: Any, model: Any, hint: str, size: int, settings: dict[str, Any], path: object) -> Any:
    fusing = _UNFUSED if hint == "f32" else {}
    try:
        fix_batch(model, size)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint, **fusing, **settings})
    except Exception as error:
        raise EngineError(f"OpenVINO refuses {path}", got=_first_line(error)) from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != hint:
        raise EngineError(f"OpenVINO changed the precision of {path}", got=used, expected=hint)
    return compiled


def _requests(stages: dict[str, list[Any]]) -> Requests:
    return {name: [model.create_infer_request() for model in models] for name, models in stages.items()}


def _prime(core: Any) -> None:
    """Run a graph of one value in this thread, before others run any.

    What OpenVINO's Python layer makes at its first inference, it makes without regard to threads: two that came there
    at once waited for each other for ever (2026.4: one in the initialiser, the other at its gate with Python's lock).
    """
    import openvino
    from openvino import opset13

    value = opset13.parameter([1], openvino.Type.f32)
    compiled = core.compile_model(openvino.Model([opset13.relu(value)], [value]), "CPU")
    _infer({"": [compiled.create_infer_request()]}, np.zeros(1, np.float32), {"": {"": ""}})


def _infer(requests: Requests, waveform: Waveform, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, Probabilities]:
    """Run each branch, stage after stage; some later stages need the waveform, too.

    Args:
        wanted: branch -> the names that the outputs of its last stage have in the results, in order.
    """
    results: dict[str, Probabilities] = {}
    for name, stages in requests.items():
        rows = waveform
        try:
            for request in stages:
                request.infer([rows, waveform][: len(request.model_inputs)], share_inputs=True)
                rows = request.get_output_tensor(0).data
            # Copied: the tensors are the request's, which writes into them again.
            found = [stages[-1].get_output_tensor(index).data.copy() for index in range(len(wanted[name]))]
        except Exception as error:
            # OpenVINO raises RuntimeError and its children for everything.
            raise EngineError(f"OpenVINO failed on branch {name}", got=_first_line(error)) from error
        results.update(zip(wanted[name], found, strict=True))
    return results


def _metadata(model: Any, key: str) -> str | None:
    path = [_METADATA, key]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def _tensors(nodes: list[Any]) -> list[tuple[str, list[Any], str]]:
    names = {"f32": "float32", "f64": "float64"}
    return [(node.get_any_name(), _shape(node), _named(node, names)) for node in nodes]


def _shape(node: Any) -> list[Any]:
    return [d.get_length() if d.is_static else "batch" for d in node.get_partial_shape()]


def _named(node: Any, names: dict[str, str]) -> str:
    kind = str(node.get_element_type().to_string())
    return names.get(kind, kind)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
