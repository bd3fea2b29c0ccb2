"""A graph of lower precision, emulated on any CPU: what a device that runs it would give, without the device.

Every tensor that the graph holds in fp16 or bf16 is rounded to that type; every operator computes in float32, as tensor
cores accumulate. So overflow, underflow and rounding show, and a label that flips there is likely to flip here, and
no speed can be read off it. It belongs in a certificate and is never a backend: no device has been run.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.float_precision import CARRIERS, TYPES
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Waveform
from ser_batch.engines.protocol import wanted_outputs
from ser_batch.errors import EngineError, ExportError


class EmulatedEngine:
    """All branches of a bundle in "fp16" or "bf16", emulated; an `Engine` as far as a comparison needs one.

    Raises:
        BundleError: the bundle has no graphs in the precision.
        EngineError: ONNX Runtime is not installed.
    """

    name = "emulated"
    device = "cpu"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        self.precision = precision
        self._bundle, self._branches = bundle, bundle.manifest.branches
        self._sessions = {
            branch.name: session(emulated(onnx.load(bundle.graph(branch, precision)), precision), threads)
            for branch in self._branches
        }

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """As an `Engine` opened with the embedding; not finite where the precision overflows."""
        results = {}
        for branch in self._branches:
            wanted = wanted_outputs(self._bundle, branch, embedding=True)
            rows = self._sessions[branch.name].run([*wanted.values()], {branch.input: waveform})
            results.update(zip(wanted, rows, strict=True))
        return results

    def close(self) -> None:
        """Release the sessions."""
        self._sessions.clear()


def emulated(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A float32 graph that rounds wherever `model` holds a tensor in `precision`."""
    low = TYPES[precision]
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    for weight in graph.initializer:
        if weight.data_type == low:
            weight.CopyFrom(numpy_helper.from_array(_widened(weight), weight.name))
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        nodes.append(node)
        # Values that are merely moved have been rounded before.
        if types.get(node.output[0]) == low and node.op_type not in CARRIERS:
            nodes += _rounding(node, low)
        elif node.op_type == "Cast" and node.attribute[0].i == low:
            raise ExportError("a graph of lower precision has a cast of unknown type", got=node.name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return found


def _rounding(node: onnx.NodeProto, low: int) -> list[onnx.NodeProto]:
    """Casts to `low` and back behind a node, whose output then goes by another name."""
    output = node.output[0]
    rounded = f"{output}__rounded"
    back = helper.make_node("Cast", [rounded], [output], name=f"widen_{output}", to=TensorProto.FLOAT)
    if node.op_type == "Cast":
        node.output[0] = rounded
        return [back]
    node.output[0] = f"{output}__exact"
    return [helper.make_node("Cast", [node.output[0]], [rounded], name=f"round_{output}", to=low), back]


def _widened(weight: onnx.TensorProto) -> npt.NDArray[np.float32]:
    kind = np.dtype(ml_dtypes.bfloat16) if weight.data_type == TensorProto.BFLOAT16 else np.dtype(np.float16)
    return np.frombuffer(weight.raw_data, dtype=kind).reshape(tuple(weight.dims)).astype(np.float32)


def session(model: onnx.ModelProto, threads: int | None = None) -> Any:
    """A graph in ONNX Runtime on the CPU, run as it is written.

    Raises:
        EngineError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise EngineError(
            "lower precisions are emulated in ONNX Runtime, which is missing",
            got=error,
            remedy="Install it: pip install 'ser-batch[cpu]'.",
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # An optimiser takes a cast there and back for nothing, and removes the rounding.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
