"""What keeps int8 accurate: smoothing changes no result, and a corrected bias takes the mean error away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.emulation import session
from export.int8_accuracy import correct_biases, costliest, smooth

RNG = np.random.default_rng(20)
WEIGHT, OTHER = (RNG.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
BATCHES = [(RNG.exponential(size=(50, 6)) ** 3 * [1, 1, 1, 1, 1, 100]).astype(np.float32) for _ in range(3)]
"""Mostly near zero and seldom large, as after a GELU; the last channel is an outlier."""
PRODUCTS = ("query", "key", "value")


def graph() -> onnx.ModelProto:
    """Three products of one tensor, of which the key has no bias and shares its weight with the query; a residual."""
    nodes = [
        helper.make_node("Relu", ["waveform"], ["x"], "relu"),
        helper.make_node("MatMul", ["x", "w"], ["q"], "query"),
        helper.make_node("Add", ["q", "b"], ["query_out"], "query_bias"),
        helper.make_node("MatMul", ["x", "w"], ["key_out"], "key"),
        helper.make_node("MatMul", ["x", "o"], ["v"], "value"),
        helper.make_node("Add", ["b", "v"], ["value_out"], "value_bias"),
        helper.make_node("Identity", ["x"], ["residual"], "residual"),
    ]
    weights = [numpy_helper.from_array(array, name) for array, name in ((WEIGHT, "w"), (OTHER, "o"))]
    weights.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "b"))
    sizes = {"query_out": 4, "key_out": 4, "value_out": 4, "residual": 6}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size]) for name, size in sizes.items()]
    start = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["B", 6])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(helper.make_graph(nodes, "g", [start], ends, weights), opset_imports=[opset], ir_version=9)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with its products in int8, as quantize_static writes it."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    arrays = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    rows = run(model, np.concatenate(BATCHES), extra=(product(model, "query").input[0],))[-1]
    added = {"step": np.float32(np.abs(rows).max() / 127), "zero": np.int8(0)}
    nodes = []
    for node in model.graph.node:
        if node.name in PRODUCTS:
            n, (x, w) = node.name, node.input
            scale = np.abs(arrays[w]).max(axis=0) / np.float32(127)
            added |= {
                f"{n}_w": np.rint(arrays[w] / scale).astype(np.int8),
                f"{n}_s": scale,
                f"{n}_z": np.zeros(4, "i1"),
            }
            nodes += [
                helper.make_node("QuantizeLinear", [x, "step", "zero"], [f"{n}_q"], f"{n}_q"),
                helper.make_node("DequantizeLinear", [f"{n}_q", "step", "zero"], [f"{n}_x"], f"{n}_x"),
                helper.make_node("DequantizeLinear", [f"{n}_w", f"{n}_s", f"{n}_z"], [f"{n}_y"], f"{n}_y", axis=1),
            ]
            node.input[:] = [f"{n}_x", f"{n}_y"]
        nodes.append(node)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in added.items())
    kept = helper.make_graph(nodes, "g", model.graph.input, model.graph.output, model.graph.initializer)
    return helper.make_model(kept, opset_imports=model.opset_import, ir_version=9)


def product(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def run(model: onnx.ModelProto, rows: npt.NDArray[np.float32], extra: tuple[str, ...] = ()) -> list[npt.NDArray]:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = [output.name for output in model.graph.output] + list(extra)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    return session(model).run(names, {"waveform": rows})


def errors(exact: onnx.ModelProto, other: onnx.ModelProto) -> list[npt.NDArray]:
    rows = np.concatenate(BATCHES)
    return [there - here for here, there in zip(run(exact, rows), run(other, rows), strict=True)]


def test_smoothing_changes_no_result_and_evens_the_channels_out() -> None:
    source, smoothed = graph(), graph()
    smooth(smoothed, PRODUCTS, BATCHES)
    onnx.checker.check_model(smoothed, full_check=True)
    for error in errors(source, smoothed):
        assert np.abs(error).max() < 1e-2  # of values up to 1e5
    (before,) = run(source, np.concatenate(BATCHES), ("x",))[-1:]
    (after,) = run(smoothed, np.concatenate(BATCHES), ("x_smoothed",))[-1:]
    spread = [largest.max() / np.median(largest) for largest in (before.max(axis=0), after.max(axis=0))]
    assert spread[0] > 50 and spread[1] < 5
    assert {product(smoothed, name).input[0] for name in PRODUCTS} == {"x_smoothed"}
    assert sum(node.name == "x_smooth" for node in smoothed.graph.node) == 1


def test_a_smoothed_graph_is_more_accurate_in_int8() -> None:
    source, smoothed = graph(), graph()
    smooth(smoothed, PRODUCTS, BATCHES)
    plain, better = (errors(source, quantised(model)) for model in (source, smoothed))
    for index in range(3):
        assert np.square(better[index]).mean() < np.square(plain[index]).mean()


@pytest.mark.parametrize("smoothing", [False, True])
def test_a_corrected_bias_takes_the_mean_error_away(smoothing: bool) -> None:
    source = graph()
    if smoothing:
        smooth(source, PRODUCTS, BATCHES)
    model = quantised(source)
    before = errors(source, model)
    correct_biases(model, source, PRODUCTS, BATCHES)
    onnx.checker.check_model(model, full_check=True)
    after = errors(source, model)
    for index in (0, 2):  # the query and the value, which share their bias in the source
        assert np.abs(after[index].mean(axis=0)).max() < 1e-3 * np.abs(before[index].mean(axis=0)).max()
    np.testing.assert_array_equal(before[1], after[1])  # the key has no bias
    assert not after[3].any()


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_costliest_product_is_the_one_that_changes_the_embedding_most(name: str) -> None:
    source = graph()
    source.graph.output[PRODUCTS.index(name)].name = "embedding"
    next(node for node in source.graph.node if node.output[0] == f"{name}_out").output[0] = "embedding"
    model = quantised(source)
    before = model.SerializeToString()
    assert costliest(model, source, PRODUCTS, BATCHES, 1) == [name]
    assert model.SerializeToString() == before


def test_without_an_embedding_the_first_output_decides() -> None:
    source = graph()
    assert costliest(quantised(source), source, PRODUCTS, BATCHES, 1) == ["query"]
