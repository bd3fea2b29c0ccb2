"""A branch's graph in fp16 or bf16, strongly typed: the precision of every operator is written in the graph.

Casts stand where a float32 part meets a lower one. No runtime needs a flag for it, and none may choose otherwise
(TensorRT 11 takes such graphs only). onnxruntime's and onnxconverter-common's converters know fp16 alone, and cast
around each exempted node; this one serves both types.

At every precision, int8 too, these nodes stay in float32, besides input and output (`fp32_nodes`):

- The front-end, up to the tensor that the metadata name: decibels and 60 dB quiet sound do not survive rounding.
- The last product and the softmax: they decide the label, and cost nothing.
- Normalisations and reductions: they sum squares over thousands of values, which is where fp16 overflows
  (NVIDIA/TensorRT#4493, #2466; onnxruntime#10079).
"""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ser_batch.engines.protocol import FRONTEND_KEY
from ser_batch.errors import ExportError

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
OPSETS = {"bf16": 22}
"""The first opset in which convolutions and pooling take the type."""
CARRIERS = frozenset(
    {
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"),
        *("Slice", "Gather", "Split", "Expand", "Tile", "Pad", "Concat"),
    }
)
"""Operators that move values and leave them as they are: they run in the type that they are given."""
FRAGILE = frozenset(
    {
        *("Softmax", "LogSoftmax"),
        *(
            "LayerNormalization",
            "RMSNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "BatchNormalization",
        ),
        *(
            "ReduceMean",
            "ReduceSum",
            "ReduceSumSquare",
            "ReduceL1",
            "ReduceL2",
            "ReduceProd",
            "ReduceLogSumExp",
            "CumSum",
        ),
        *("Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Div"),
    }
)
"""Operators that stay in float32 wherever they are."""
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
_FIXED = frozenset({"Cast", "Constant", "ConstantOfShape", "Range", "QuantizeLinear", "DequantizeLinear"})
"""Operators whose type is not that of an input."""
_FLOAT = TensorProto.FLOAT


def to_float_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """`model` in "fp16" or "bf16"; the original is left as it is.

    Raises:
        ExportError: a weight is beyond the type's range, or the graph is of a kind that cannot be converted.
    """
    try:
        if precision in OPSETS:
            model = onnx.version_converter.convert_version(model, OPSETS[precision])
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph cannot be typed for {precision}", got=str(error).partition("\n")[0]) from error
    return _Lowering(typed, precision).result()


class _Lowering:
    """One pass over the nodes in topological order, in which each tensor gets a type and, where needed, a cast."""

    def __init__(self, model: onnx.ModelProto, precision: str) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._precision, self._low = precision, TYPES[precision]
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._types = _float_tensors(model)
        self._copies: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def result(self) -> onnx.ModelProto:
        graph = self._model.graph
        in_fp32 = fp32_nodes(self._model)
        for node in graph.node:
            self._convert(node, in_fp32)
        for output in graph.output:
            if self._types.get(output.name) != _FLOAT:
                raise ExportError("the graph does not end in float32", got=output.name, expected="a softmax at the end")
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        drop_unused_weights(graph)
        onnx.checker.check_model(self._model, full_check=True)
        return self._model

    def _convert(self, node: onnx.NodeProto, in_fp32: frozenset[str]) -> None:
        wanted = self._wanted(node, in_fp32)
        if node.op_type not in _FIXED:
            for index, name in enumerate(node.input):
                if name in self._types:
                    node.input[index] = self._as(name, wanted)
            for name in node.output:
                if name in self._types:
                    self._types[name] = wanted
        self._nodes.append(node)

    def _wanted(self, node: onnx.NodeProto, in_fp32: frozenset[str]) -> int:
        if node.name in in_fp32 or node.op_type in _FIXED:
            return _FLOAT
        if node.op_type in CARRIERS:
            given = {self._types[name] for name in node.input if name in self._types and name not in self._weights}
            return _FLOAT if given == {_FLOAT} else self._low
        return self._low if _takes(node, self._opset, self._precision) else _FLOAT

    def _as(self, name: str, wanted: int) -> str:
        """The tensor `name` in the type `wanted`: itself, a converted weight, or the result of a cast."""
        if self._types[name] == wanted:
            return name
        if (name, wanted) not in self._copies:
            copy = f"{name}_{'fp32' if wanted == _FLOAT else self._precision}"
            if name in self._weights:
                self._model.graph.initializer.append(self._weight(name, copy))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [copy], name=f"cast_{copy}", to=wanted))
            self._types[copy] = wanted
            self._copies[name, wanted] = copy
        return self._copies[name, wanted]

    def _weight(self, name: str, copy: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(self._weights[name])
        with np.errstate(over="ignore"):
            rounded = round_to(values, self._precision)
        if not np.isfinite(rounded.astype(np.float32)).all():
            raise ExportError(
                f"weight {name} does not fit {self._precision}",
                got=f"a largest magnitude of {np.abs(values).max():.3g}",
                remedy="Use bf16, which has the range of fp32.",
            )
        return helper.make_tensor(copy, self._low, values.shape, rounded.tobytes(), raw=True)


def round_to(values: npt.NDArray[np.floating], precision: str) -> npt.NDArray[np.generic]:
    """`values` rounded to the nearest of the type."""
    return values.astype({"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}[precision])


def _float_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Name → float32, of every tensor that is."""
    graph = model.graph
    values: Iterable[onnx.ValueInfoProto] = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name: _FLOAT for value in values if value.type.tensor_type.elem_type == _FLOAT}
    return found | {weight.name: _FLOAT for weight in graph.initializer if weight.data_type == _FLOAT}


def _takes(node: onnx.NodeProto, opset: int, precision: str) -> bool:
    """Whether an operator is defined for the type."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return False
    name = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[precision]
    return any(name in parameter.types for parameter in schema.inputs)


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node reads."""
    used = {name for node in graph.node for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def fp32_nodes(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that stay in float32 for what they are or where they are.

    Raises:
        ExportError: the graph does not say where its front-end ends, has nodes without a name, or has subgraphs.
    """
    nodes = list(model.graph.node)
    names = {node.name for node in nodes}
    if len(names) != len(nodes) or "" in names:
        raise ExportError("the nodes of the graph have no names of their own", remedy="Export the bundle again.")
    if any(attribute.HasField("g") or attribute.graphs for node in nodes for attribute in node.attribute):
        raise ExportError("the graph has branches or loops, which no other precision is made of")
    fragile = {node.name for node in nodes if node.op_type in FRAGILE}
    # What makes an output is one node, and outputs are float32.
    ends = {output.name for output in model.graph.output}
    last = {node.name for node in nodes if not ends.isdisjoint(node.output)}
    return frozenset(fragile | last | _before(nodes, frontend_tensor(model)) | _head(model))


def frontend_tensor(model: onnx.ModelProto) -> str:
    """The tensor where the front-end ends.

    Raises:
        ExportError: the metadata do not name one, or the graph has none of that name.
    """
    tensor = next((entry.value for entry in model.metadata_props if entry.key == FRONTEND_KEY), None)
    if tensor is None or all(tensor not in node.output for node in model.graph.node):
        raise ExportError(
            "the graph does not say where its front-end ends, which stays in fp32",
            got=tensor,
            remedy="Export the bundle again.",
        )
    return tensor


def _before(nodes: list[onnx.NodeProto], tensor: str) -> set[str]:
    """Names of the nodes on which `tensor` depends."""
    needed, found = {tensor}, set()
    for node in reversed(nodes):  # the graph is in topological order
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            found.add(node.name)
    return found


def _head(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes from the last product to the probabilities, the first of the outputs."""
    needed, found = {model.graph.output[0].name}, set()
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            needed.difference_update(node.output)
            found.add(node.name)
            if node.op_type in PRODUCTS:
                return found
            needed.update(node.input)
    raise ExportError("the graph has no product, so no lower precision to run it in")
