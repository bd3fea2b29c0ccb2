"""Small ONNX graphs for the passes of `export`."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def chain(*operators: str, frontend: str | None = "t1") -> onnx.ModelProto:
    """A graph of operators one after the other, whose tensors are t0, t1, …; products take a square weight."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
    nodes = [
        helper.make_node(operator, [f"t{i}", "w"] if operator == "MatMul" else [f"t{i}"], [f"t{i + 1}"], name=f"n{i}")
        for i, operator in enumerate(operators)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 4]) for name in ("t0", f"t{len(operators)}")]
    model = helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight]))
    if frontend is not None:
        helper.set_model_props(model, {"frontend_output": frontend})
    return model
