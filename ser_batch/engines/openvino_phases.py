"""A strided convolution of one channel, as a decimation is, by phases: many outputs a step, each a channel.

OpenVINO runs a convolution well over many channels. One channel with stride 3 wastes its vectors: the decimation of
the default bundle, 0.3 % of the operations, took 10 % of the time. Cut into blocks of P · stride samples, the signal
has that many channels, and one step of a plain convolution over neighbouring blocks gives P outputs. The weights are
the same taps, shifted for each output and zero elsewhere, so the sums are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PHASES = 32
"""Outputs a step; 16 and 64 were no faster."""


def use_phases(model: Any) -> int:
    """Rewrite in place the 1-D convolutions of one channel whose stride is above 1 and taps are constant; how many."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution" and _fits(node)]
    for node in found:
        output = _by_phases(node).output(0)
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(output)
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def _fits(node: Any) -> bool:
    attributes, taps = node.get_attributes(), node.input_value(1).get_node()
    if taps.get_type_name() != "Constant" or taps.data.ndim != 3 or taps.data.shape[:2] != (1, 1):
        return False
    if attributes["dilations"] != [1] or attributes["strides"] == [1] or attributes["auto_pad"] != "explicit":
        return False
    if node.input(0).get_partial_shape()[2].is_dynamic:
        return False
    # A step sees one block to the left and one to the right of its own.
    step = PHASES * attributes["strides"][0]
    left = attributes["pads_begin"][0]
    return bool(left <= step and taps.data.shape[2] - left <= step + attributes["strides"][0])


def _by_phases(node: Any) -> Any:
    """What takes the place of `node`: (B, 1, T) to (B, 1, outputs)."""
    from openvino import opset13 as ops

    attributes, taps = node.get_attributes(), node.input_value(1).get_node().data[0, 0]
    stride, left = attributes["strides"][0], attributes["pads_begin"][0]
    length, outputs = (tensor.get_partial_shape()[2].get_length() for tensor in (node.input(0), node.output(0)))
    step = PHASES * stride
    steps = max(-(-outputs // PHASES), -(-length // step))
    missing, zero = steps * step - length, ops.constant(np.zeros((), taps.dtype))
    signal = ops.pad(node.input_value(0), ops.constant([0, 0, 0]), ops.constant([0, 0, missing]), "constant", zero)
    blocks = ops.transpose(ops.reshape(signal, ops.constant([0, steps, step]), True), ops.constant([0, 2, 1]))
    weights = ops.constant(shifted(taps, stride, left))
    found = ops.transpose(ops.convolution(blocks, weights, [1], [1], [1], [1]), ops.constant([0, 2, 1]))
    flat = ops.reshape(found, ops.constant([0, 1, steps * PHASES]), True)
    return ops.slice(flat, ops.constant([0]), ops.constant([outputs]), ops.constant([1]), ops.constant([2]))


def shifted(taps: npt.NDArray[np.float32], stride: int, left: int) -> npt.NDArray[np.float32]:
    """`taps` (K,) of a convolution padded by `left`, as weights (PHASES, PHASES · stride, 3) of one over blocks."""
    step = PHASES * stride
    weights = np.zeros((PHASES, 3 * step), taps.dtype)
    for phase in range(PHASES):
        first = step + phase * stride - left
        weights[phase, first : first + len(taps)] = taps
    return np.ascontiguousarray(weights.reshape(PHASES, 3, step).transpose(0, 2, 1))
