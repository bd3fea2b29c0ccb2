"""int8 graphs: explicit Q/DQ on products with a weight, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from export.float_precision import fp32_nodes, frontend_tensor
from export.int8 import SPARED, quantisable, to_int8
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import ExportError
from ser_batch.recordings.recording import Recording
from ser_batch.verification.speech import find_speech
from support.graphs import chain
from support.toy_speech import write_speech


@pytest.fixture(scope="module")
def speech(exported_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Recording]:
    return find_speech(write_speech(tmp_path_factory.mktemp("speech"), exported_bundle.manifest.clip))


@pytest.fixture(scope="module", params=["wav2vec2", "spectrogram"])
def pair(
    request: pytest.FixtureRequest, exported_bundle: Bundle, speech: Sequence[Recording]
) -> tuple[str, onnx.ModelProto, onnx.ModelProto]:
    source = onnx.load(exported_bundle.path(f"{request.param}.onnx"))
    return request.param, source, to_int8(source, speech, exported_bundle.manifest.clip, spared=0)


def products_of(model: onnx.ModelProto) -> set[str]:
    """The nodes that read what DequantizeLinear gives."""
    made = {name: node for node in model.graph.node for name in node.output}
    return {
        node.name
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and any(name in made and made[name].op_type == "DequantizeLinear" for name in node.input)
    }


def test_only_products_with_a_weight_outside_the_fp32_parts_are_quantised(
    pair: tuple[str, onnx.ModelProto, onnx.ModelProto],
) -> None:
    _, source, model = pair
    weights = {weight.name for weight in source.graph.initializer}
    in_fp32 = fp32_nodes(source)
    expected = {n.name for n in source.graph.node if n.op_type == "MatMul" and n.input[1] in weights} - in_fp32
    assert products_of(model) == expected and expected
    assert frontend_tensor(model) == frontend_tensor(source)


def test_it_is_symmetric_with_one_scale_per_column(pair: tuple[str, onnx.ModelProto, onnx.ModelProto]) -> None:
    _, _, model = pair
    arrays = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    weights = 0
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not arrays[node.input[2]].any(), "a zero point other than 0"
            if node.input[0] in arrays:
                weights += 1
                assert arrays[node.input[0]].dtype == np.int8
                assert arrays[node.input[1]].shape == (arrays[node.input[0]].shape[1],)
            else:
                assert arrays[node.input[1]].shape == ()
    assert weights
    ends = (*model.graph.input, *model.graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}


def test_it_is_close_and_a_clip_does_not_depend_on_its_batch(
    pair: tuple[str, onnx.ModelProto, onnx.ModelProto], exported_bundle: Bundle
) -> None:
    branch, _, model = pair
    reference = exported_bundle.reference()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (rows,) = session.run(["probabilities"], {"waveform": reference.waveform})
    assert 1e-6 < np.abs(rows - reference.branches[branch]).max() < 5e-2
    (alone,) = session.run(["probabilities"], {"waveform": reference.waveform[1:2]})
    np.testing.assert_allclose(alone, rows[1:2], atol=1e-5)


def test_the_costliest_products_are_spared(exported_bundle: Bundle, speech: Sequence[Recording]) -> None:
    source, clip = onnx.load(exported_bundle.path("spectrogram.onnx")), exported_bundle.manifest.clip
    every = set(quantisable(source))
    spared = to_int8(source, speech, clip)
    left = products_of(spared)
    assert left < every and len(left) == len(every) - SPARED
    weights = {weight.name for weight in source.graph.initializer}
    for node in spared.graph.node:  # neither smoothed nor quantised
        if node.name in every - left:
            assert node.input[1] in weights
    assert len(products_of(to_int8(source, speech, clip, spared=1000))) == 1


def test_without_speech_nothing_is_calibrated(exported_bundle: Bundle) -> None:
    model = onnx.load(exported_bundle.path("wav2vec2.onnx"))
    with pytest.raises(ExportError, match=r"cannot be calibrated without recorded speech.*--calibration"):
        to_int8(model, (), exported_bundle.manifest.clip)


def test_a_graph_with_nothing_to_quantise_is_refused(exported_bundle: Bundle, speech: Sequence[Recording]) -> None:
    model = chain("Identity", "Relu", "MatMul", "Softmax")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = exported_bundle.manifest.clip.samples
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((exported_bundle.manifest.clip.samples, 4), np.float32), "w")
    )
    with pytest.raises(ExportError, match="nothing in the graph can be quantised"):
        to_int8(model, speech, exported_bundle.manifest.clip)


def test_ranges_come_from_the_speech(exported_bundle: Bundle, tmp_path: Path, speech: Sequence[Recording]) -> None:
    source = onnx.load(exported_bundle.path("spectrogram.onnx"))
    clip = exported_bundle.manifest.clip
    one, all_of_it = (to_int8(source, part, clip, spared=0) for part in (speech[:1], speech))
    scales = [
        {
            w.name: float(numpy_helper.to_array(w))
            for w in m.graph.initializer
            if w.name.endswith("_scale") and not w.dims
        }
        for m in (one, all_of_it)
    ]
    assert scales[0].keys() == scales[1].keys()
    assert all(scales[1][name] >= scales[0][name] for name in scales[0])
    assert scales[0] != scales[1]
