"""Where a front-end ends, found by the scopes that torch's exporter notes at each node."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from export.onnx_export import frontend_output
from ser_batch.errors import ExportError

Node = tuple[str, list[str], str, str | None]
"""Operator, inputs, output, and the module that the exporter notes."""
CLEAN: list[Node] = [
    ("Identity", ["waveform"], "decimated", "branch.decimate"),
    ("Neg", ["decimated"], "half", None),  # the exporter leaves some nodes without notes
    ("Neg", ["half"], "features", "branch.frontend"),
    ("Relu", ["features"], "probabilities", "branch.encoder"),
]


def graph(nodes: list[Node]) -> onnx.ModelProto:
    made = []
    for kind, inputs, output, module in nodes:
        node = helper.make_node(kind, inputs, [output])
        if module is not None:
            entry = node.metadata_props.add()
            entry.key, entry.value = "pkg.torch.onnx.name_scopes", repr(["", "branch", module, kind])
        made.append(node)
    tensors = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8])] for name in ("waveform", "probabilities")
    ]
    return helper.make_model(helper.make_graph(made, "branch", *tensors))


def test_it_is_the_last_tensor_of_the_front_end_s_modules() -> None:
    assert frontend_output(graph(CLEAN)) == "features"


def test_standardising_belongs_to_it() -> None:
    last = ("Relu", ["standard"], "probabilities", "branch.cnn")
    nodes = [*CLEAN[:-1], ("Neg", ["features"], "standard", "branch.standardise"), last]
    assert frontend_output(graph(nodes)) == "standard"


def test_a_branch_without_front_end_has_none() -> None:
    assert frontend_output(graph([("Relu", ["waveform"], "probabilities", "branch.encoder")])) is None


def test_a_batch_size_read_off_the_waveform_is_no_way_past_it() -> None:
    shape = ("Shape", ["waveform"], "size", None)
    nodes = [*CLEAN[:-1], shape, ("Reshape", ["features", "size"], "probabilities", "branch.encoder")]
    assert frontend_output(graph(nodes)) == "features"


def test_sound_that_bypasses_it_is_refused() -> None:
    nodes = [*CLEAN[:-1], ("Add", ["features", "decimated"], "probabilities", "branch.encoder")]
    with pytest.raises(ExportError, match="does not end in one tensor; got a way from waveform to probabilities past"):
        frontend_output(graph(nodes))
