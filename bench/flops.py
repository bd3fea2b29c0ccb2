"""Floating point operations per clip, counted from an ONNX graph: a multiply-add counts as two.

Convolutions and matrix products are over 99 % of both branches; elementwise work is not counted. Graphs with operators
whose products this module cannot count are refused, so that no count is too small in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError

Shapes = Mapping[str, tuple[int, ...]]
REFUSED = frozenset(
    {"Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "GroupQueryAttention", "If", "LSTM"}
    | {"Loop", "MatMulInteger", "MultiHeadAttention", "QLinearConv", "QLinearMatMul", "RNN", "STFT", "Scan", "DFT"}
)
"""Operators with products inside that this module does not count."""


@dataclass(frozen=True)
class FlopCount:
    """Operations of one clip through one graph."""

    by_operator: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_operator.values())


def count_bundle(bundle: Bundle) -> dict[str, FlopCount]:
    """Branch name → operations of one clip. EngineError as `count_flops`."""
    return {branch.name: count_flops(bundle.path(branch.file)) for branch in bundle.manifest.branches}


def count_flops(path: Path) -> FlopCount:
    """Operations of a batch of one through the graph at `path`.

    Raises:
        EngineError: onnx is missing, a shape cannot be inferred, or an operator is in `REFUSED`.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineError(
            "counting operations needs onnx", got=error, remedy="Install it: pip install 'ser-batch[export]'."
        ) from error
    model = onnx.load(path)
    shapes = _shapes(model)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in REFUSED:
            raise EngineError(f"{path} holds an operator whose work is not counted", got=f"{node.op_type} {node.name}")
        if count := _COUNTED.get(node.op_type):
            try:
                counts[node.op_type] = counts.get(node.op_type, 0) + count(node, shapes)
            except KeyError as missing:
                raise EngineError(f"{path}: the shape of {missing} cannot be inferred") from missing
    return FlopCount(counts)


def _shapes(model: Any) -> Shapes:
    """Name → shape of every tensor whose shape is known for a batch of one."""
    import onnx

    for tensor in model.graph.input:
        for dimension in tensor.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = 1
    # What the exporter noted still has its own free batch dimension.
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            shapes[value.name] = tuple(d.dim_value for d in dimensions)
    return shapes


def _conv(node: Any, shapes: Shapes) -> int:
    # The weight is (out, in / groups, kernel…): one output value is a product over all but its first axis.
    return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _matmul(node: Any, shapes: Shapes) -> int:
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: Any, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_COUNTED: dict[str, Callable[[Any, Shapes], int]] = {"Conv": _conv, "MatMul": _matmul, "Gemm": _gemm}
