"""Which nodes of a branch's graph stay in float32 at every precision, and why.

- The front-end, up to the tensor that the metadata name: decibels and 60 dB quiet sound do not survive rounding.
- The last product and the softmax: they decide the label, and cost nothing.
- Normalisations and reductions: they sum squares over thousands of values, which is where fp16 overflows
  (NVIDIA/TensorRT#4493, #2466; onnxruntime#10079).
"""

from __future__ import annotations

import onnx

from ser_batch.engines.protocol import FRONTEND_KEY
from ser_batch.errors import ExportError

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


def kept_nodes(model: onnx.ModelProto) -> frozenset[str]:
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
    return frozenset(fragile | _before(nodes, frontend_tensor(model)) | _head(model))


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
    """Names of the nodes from the last product to the output."""
    needed, found = {output.name for output in model.graph.output}, set()
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            needed.difference_update(node.output)
            found.add(node.name)
            if node.op_type in PRODUCTS:
                return found
            needed.update(node.input)
    raise ExportError("the graph has no product, so no lower precision to run it in")
