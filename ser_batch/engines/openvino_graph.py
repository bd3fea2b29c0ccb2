"""What is done to a graph before OpenVINO compiles it: cut at the front-end's end, no group too narrow, a fixed batch.

Nothing here changes what a graph computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import EngineError

WIDTH = 32
"""Channels a group from which OpenVINO 2026.4 has a fast bf16 convolution whatever the kernel's length."""


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


def widen_groups(model: Any) -> int:
    """Join the groups of grouped convolutions until each has `WIDTH` channels, with zeros between them; how many.

    wav2vec 2.0's positional convolution has 16 channels a group at the size of the recipe compact. In bf16 OpenVINO
    then takes a kernel of many small products, 60 times slower than twice the work in groups of 32, and 80 % of the
    branch's time. A depthwise convolution has kernels of its own and is left alone.
    """
    from openvino import opset13
    from openvino.passes import ConstantFolding, Manager

    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution"]
    if not convolutions:
        return 0
    # The importer hides the weights behind a reshape.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    widened = 0
    for node in (node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution"):
        constant = node.input_value(1).get_node()
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
