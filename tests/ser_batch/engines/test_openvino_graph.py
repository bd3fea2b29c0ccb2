from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ser_batch.engines.openvino_graph import WIDTH, widen_groups

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
