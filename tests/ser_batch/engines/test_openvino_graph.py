from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ser_batch.engines.openvino_graph import PHASES, WIDTH, use_phases, widen_groups

openvino = pytest.importorskip("openvino", reason="openvino is not installed")


def grouped(groups: int, inputs: int, outputs: int) -> Any:
    """A model of one grouped convolution: stride 2, uneven padding, a constant behind a reshape as from ONNX."""
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).standard_normal((groups * outputs, inputs, 5)).astype(np.float32)
    x = ops.parameter([-1, groups * inputs, 30], openvino.Type.f32)
    shaped = ops.reshape(ops.constant(weights), [groups, outputs, inputs, 5], special_zero=False)
    return openvino.Model([ops.relu(ops.group_convolution(x, shaped, [2], [2], [1], [1]))], [x])


def run(model: Any, x: Any) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(model, "CPU", settings)([x])[0]


def widths(model: Any) -> list[tuple[int, ...]]:
    return [
        tuple(node.input_value(1).get_shape())[:3]
        for node in model.get_ordered_ops()
        if node.get_type_name() == "GroupConvolution"
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 16, 16), (4, 32, 32)),
        ((6, 4, 8), (1, 48, 24)),
        ((4, 24, 24), (2, 48, 48)),
        ((2, 4, 4), (1, 8, 8)),
    ],
)
def test_narrow_groups_are_joined_and_compute_the_same(shape: tuple[int, int, int], expected: tuple[int, ...]) -> None:
    groups, inputs, outputs = shape
    x = np.random.default_rng(1).standard_normal((2, groups * inputs, 30)).astype(np.float32)
    before = run(grouped(groups, inputs, outputs), x)
    model = grouped(groups, inputs, outputs)
    assert widen_groups(model) == 1
    assert widths(model) == [expected]
    np.testing.assert_allclose(run(model, x), before, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, WIDTH, WIDTH), (8, 1, 1), (8, 1, 4)])
def test_wide_and_depthwise_groups_are_left_alone(shape: tuple[int, int, int]) -> None:
    model = grouped(*shape)
    assert widen_groups(model) == 0
    assert widths(model) == [(shape[0], shape[2], shape[1])]


def test_int8_weights_elsewhere_stay_int8() -> None:
    from openvino import opset13 as ops

    model = grouped(4, 8, 8)
    end = model.get_results()[0].input_value(0)
    weights = ops.constant(np.ones((end.get_partial_shape()[2].get_length(), 4), np.int8))
    scaled = ops.multiply(ops.convert(weights, "f32"), ops.constant(np.float32(0.5)))
    quantised = openvino.Model([ops.matmul(end, scaled, False, False)], model.get_parameters())
    assert widen_groups(quantised) == 1
    constants = [node for node in quantised.get_ordered_ops() if node.get_type_name() == "Constant"]
    assert any(node.get_element_type() == openvino.Type.i8 for node in constants)


def strided(length: int, taps: int, stride: int, pads: tuple[int, int], channels: int = 1, dilation: int = 1) -> Any:
    """A model of one convolution over (B, channels, length)."""
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).standard_normal((1, channels, taps)).astype(np.float32)
    x = ops.parameter([-1, channels, length], openvino.Type.f32)
    found = ops.convolution(x, ops.constant(weights), [stride], [pads[0]], [pads[1]], [dilation])
    return openvino.Model([ops.relu(found)], [x])


@pytest.mark.parametrize(
    ("length", "taps", "stride", "pads"),
    [
        (14_400, 41, 3, (19, 22)),  # the decimation: outputs and blocks end together, but for one output
        (1_000, 41, 3, (19, 22)),
        (1_000, 41, 3, (0, 0)),  # the last samples are in no sum
        (97, 5, 2, (1, 0)),
        (20, 5, 2, (2, 2)),  # shorter than a block
        (500, 3 * PHASES + 2, 3, (0, 40)),
        (500, 3 * PHASES, 3, (3 * PHASES, 0)),  # as far to the left as a step sees
    ],
)
def test_phases_compute_what_the_convolution_does(length: int, taps: int, stride: int, pads: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 1, length)).astype(np.float32)
    before = run(strided(length, taps, stride, pads), x)
    model = strided(length, taps, stride, pads)
    assert use_phases(model) == 1
    assert not any(node.get_attributes().get("strides") == [stride] for node in model.get_ordered_ops())
    found = run(model, x)
    assert found.shape == before.shape
    np.testing.assert_allclose(found, before, atol=1e-5)


@pytest.mark.parametrize(
    "other", [{"stride": 1}, {"channels": 2}, {"dilation": 2}, {"taps": 6 * PHASES}, {"pads": (3 * PHASES + 1, 0)}]
)
def test_other_convolutions_are_left_alone(other: dict[str, Any]) -> None:
    model = strided(**{"length": 1_000, "taps": 41, "stride": 3, "pads": (19, 22)} | other)
    assert use_phases(model) == 0
