"""How a graph is rewritten before OpenVINO compiles it; nothing here changes what it computes.

It is cut where its front-end ends, for bf16; narrow groups of a convolution are joined; the batch is fixed; and a
strided convolution of one channel, as a decimation is, becomes one over many channels ("phases").

OpenVINO runs a convolution well over many channels. One channel with stride 3 wastes its vectors: the decimation of
the default bundle, 0.3 % of the operations, took 10 % of the time. Cut into blocks of P · stride samples, the signal
has that many channels, and one step of a plain convolution over neighbouring blocks gives P outputs. The weights are
the same taps, shifted for each output and zero elsewhere, so the sums are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import EngineError

WIDTH = 32
"""Channels per group from which OpenVINO 2026.4 has a fast bf16 convolution whatever the kernel's length."""
PHASES = 32
"""Outputs per step of a convolution by phases; 16 and 64 were no faster."""


def frontend(model: Any, boundary: str, path: object) -> Any:
    """Everything from the waveform to the tensor `boundary`.

    Raises:
        EngineError: the graph, read from `path`, has no such tensor.
    """
    import openvino

    return openvino.Model([_tensor(model, boundary, path)], model.get_parameters())


def network(model: Any, boundary: str, path: object) -> Any:
    """Everything from the tensor `boundary` to the probabilities; `model` itself is no longer whole then.

    Raises:
        EngineError: the graph, read from `path`, has no such tensor.
    """
    import openvino
    from openvino import opset13

    cut = _tensor(model, boundary, path)
    features = opset13.parameter(cut.get_partial_shape(), openvino.Type.f32, name="features")
    for consumer in cut.get_target_inputs():
        consumer.replace_source_output(features.output(0))
    # Some exports read the batch size off the waveform, far into the network: that part then gets it, too.
    waveform = [parameter for parameter in model.get_parameters() if _depends(model, parameter)]
    return openvino.Model(model.get_results(), [features, *waveform])


def keep_outputs(model: Any, names: Sequence[str]) -> Any:
    """`model` without its other outputs, and these in the order of `names`."""
    results = {name: result for result in model.get_results() for name in result.output(0).get_names()}
    for result in model.get_results():
        model.remove_result(result)
    model.add_results([results[name] for name in names])
    return model


def widen_groups(model: Any) -> int:
    """Join groups of convolutions, zeros between them, until each has `WIDTH` channels; returns how many were changed.

    wav2vec 2.0's positional convolution has 16 channels per group at the size of the recipe compact. In bf16 OpenVINO
    then takes a kernel of many small products, 60 times slower than twice the work in groups of 32, and 80 % of the
    branch's time. A depthwise convolution has kernels of its own and is left alone.
    """
    from openvino import opset13

    widened = 0
    for node in (node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution"):
        constant = _folded(node.input_value(1))
        if constant.get_type_name() != "Constant" or (joined := _joined(*constant.shape[:3])) == 1:
            continue
        attributes = node.get_attributes()
        wide = opset13.group_convolution(
            node.input_value(0),
            opset13.constant(_join(constant.data, joined)),
            *(attributes[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")),
        )
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(wide.output(0))
        widened += 1
    return widened


def fix_batch(model: Any, size: int) -> None:
    """Let every input hold `size` clips and no other number: OpenVINO then plans shapes and memory once, not each run.

    The first dimension of an input is its clips.
    """
    shapes = {}
    for parameter in model.get_parameters():
        shape = parameter.get_partial_shape()
        shape[0] = size
        shapes[parameter.output(0)] = shape
    model.reshape(shapes)


def use_phases(model: Any) -> int:
    """Rewrite each 1-D convolution of one channel with constant taps and a stride above 1; returns how many."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution" and _fits(node)]
    for node in found:
        output = _by_phases(node).output(0)
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(output)
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def _folded(value: Any) -> Any:
    """The node behind `value`, made one constant where it depends on constants alone.

    The importer hides weights behind a reshape. No other part of the graph is folded: that would turn the weights of
    an int8 graph back into floats.
    """
    import openvino
    from openvino import opset13
    from openvino.passes import ConstantFolding, Manager

    end = opset13.result(value)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(openvino.Model([end], []))
    return end.input_value(0).get_node()


def _joined(groups: int, outputs: int, inputs: int) -> int:
    """How many groups become one: the fewest that fill `WIDTH`, and leave none over."""
    if inputs == 1:
        return 1
    return next((n for n in range(1, groups) if groups % n == 0 and n * min(inputs, outputs) >= WIDTH), groups)


def _join(weights: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """(G, O, I, taps…) to (G / count, count · O, count · I, taps…), zero where one group would see another's input."""
    groups, outputs, inputs, *taps = weights.shape
    joined = np.zeros((groups // count, count, outputs, count, inputs, *taps), weights.dtype)
    each = weights.reshape(groups // count, count, outputs, inputs, *taps)
    for index in range(count):
        joined[:, index, :, index] = each[:, index]
    return joined.reshape(groups // count, count * outputs, count * inputs, *taps)


def _depends(model: Any, parameter: Any) -> bool:
    """Whether a result of `model`, whose graph may have been cut, still needs `parameter`."""
    todo, seen = list(model.get_results()), set()
    while todo:
        node = todo.pop()
        if (name := node.get_name()) in seen:
            continue
        seen.add(name)
        todo += [source.get_source_output().get_node() for source in node.inputs()]
    return parameter.get_name() in seen


def _tensor(model: Any, name: str, path: object) -> Any:
    for operator in model.get_ordered_ops():
        for output in operator.outputs():
            if name in output.get_names():
                return output
    raise EngineError(f"{path} has no tensor {name!r}, where it says its front-end ends")


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
