"""fp16 and bf16 graphs: typed throughout, float32 where it must be, and no overflow that is not seen."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export.emulation import emulated, session
from export.float_precision import FRAGILE, TYPES, fp32_nodes, frontend_tensor, round_to, to_float_precision
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.errors import ExportError
from ser_batch.verification.compare import embedding_differences
from support.graphs import chain
from support.toy import LABELS, toy_graph, toy_weights

EACH = pytest.mark.parametrize("precision", ["fp16", "bf16"])
BRANCHES = pytest.mark.parametrize("branch", ["wav2vec2", "spectrogram"])


def graph(bundle: Bundle, branch: str) -> onnx.ModelProto:
    return onnx.load(bundle.path(f"{branch}.onnx"))


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*typed.graph.input, *typed.graph.output, *typed.graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in model.graph.initializer}


@EACH
@BRANCHES
def test_the_types_are_those_stated(exported_bundle: Bundle, branch: str, precision: str) -> None:
    model = to_float_precision(graph(exported_bundle, branch), precision)
    types, low = types_of(model), TYPES[precision]
    assert types["waveform"] == types["probabilities"] == types[frontend_tensor(model)] == TensorProto.FLOAT
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
    lowered = [node for node in products if types[node.output[0]] == low]
    assert len(lowered) > 5 and {node.op_type for node in lowered} == {"MatMul", "Conv"}
    for node in model.graph.node:
        floats = {types[name] for name in (*node.input, *node.output) if types.get(name) in (low, TensorProto.FLOAT)}
        assert node.op_type == "Cast" or len(floats) <= 1, f"{node.name} mixes types"
        if node.op_type in FRAGILE:
            assert floats == {TensorProto.FLOAT}, node.name
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    assert casts < len(model.graph.node) / 4


@EACH
@BRANCHES
def test_it_is_close_to_what_was_trained_and_really_rounds(
    exported_bundle: Bundle, branch: str, precision: str
) -> None:
    reference = exported_bundle.reference()
    model = to_float_precision(graph(exported_bundle, branch), precision)
    rows, *embedding = session(emulated(model, precision), 1).run(None, {"waveform": reference.waveform})
    difference = np.abs(rows - reference.branches[branch]).max()
    assert 1e-7 < difference < {"fp16": 4e-3, "bf16": 2e-2}[precision]
    assert len(embedding) == (branch == "wav2vec2")
    for found in embedding:
        assert reference.embedding is not None and types_of(model)["embedding"] == TensorProto.FLOAT
        assert 1e-7 < embedding_differences(reference.embedding, found).max() < {"fp16": 1e-2, "bf16": 4e-2}[precision]


def test_loud_quiet_and_silent_clips_stay_finite_in_fp16(exported_bundle: Bundle) -> None:
    clips = synthetic_clips(exported_bundle.manifest.clip)
    square = np.sign(clips[:1]) * np.float32(1)
    whisper = clips[:1] * np.float32(1e-4)
    clips = np.concatenate([clips, square, whisper, -np.ones_like(square)])
    for branch in ("wav2vec2", "spectrogram"):
        model = emulated(to_float_precision(graph(exported_bundle, branch), "fp16"), "fp16")
        rows, *_ = session(model, 1).run(None, {"waveform": clips})
        assert np.isfinite(rows).all()
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-4)


def scaled(factor: float) -> onnx.ModelProto:
    """Two products: the first multiplies by `factor`, the last by the inverse."""
    model = chain("Identity", "MatMul", "Relu", "MatMul", "Softmax")
    weights = {"w": np.eye(4, dtype=np.float32) * np.float32(factor)}
    model.graph.node[3].input[1] = "v"
    weights["v"] = np.eye(4, dtype=np.float32) / np.float32(factor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def test_an_overflow_shows_in_the_emulation_of_fp16_alone() -> None:
    sound = np.full((1, 4), 10, np.float32)
    for precision, finite in (("fp16", False), ("bf16", True)):
        model = emulated(to_float_precision(scaled(3e4), precision), precision)
        (rows,) = session(model, 1).run(None, {"t0": sound})
        assert np.isfinite(rows).all() == finite


def test_a_weight_beyond_the_range_is_refused() -> None:
    with pytest.raises(ExportError, match=r"weight w does not fit fp16.*Use bf16"):
        to_float_precision(scaled(1e6), "fp16")
    to_float_precision(scaled(1e6), "bf16")


def test_rounding_is_that_of_the_type() -> None:
    values = np.array([1 + 2**-11, 1 + 2**-9, 70_000], np.float32)
    with np.errstate(over="ignore"):
        assert round_to(values, "fp16").astype(np.float32).tolist() == [1, 1 + 2**-9, np.inf]
    assert round_to(values, "bf16").astype(np.float32).tolist() == [1, 1, 70_144]


def test_the_original_is_left_as_it_is(exported_bundle: Bundle) -> None:
    model = graph(exported_bundle, "spectrogram")
    before = model.SerializeToString(deterministic=True)
    for precision in ("fp16", "bf16"):
        to_float_precision(model, precision)
    assert model.SerializeToString(deterministic=True) == before


def test_front_end_last_product_and_softmax_stay_in_fp32() -> None:
    model = chain("Abs", "MatMul", "Relu", "MatMul", "Identity", "Softmax")
    assert fp32_nodes(model) == {"n0", "n3", "n4", "n5"}


def test_what_overflows_stays_in_fp32_wherever_it_is() -> None:
    fragile = ("Softmax", "Sqrt", "Exp", "Reciprocal")
    assert set(fragile) < FRAGILE
    assert fp32_nodes(chain("Abs", "Relu", *fragile, "Relu", "MatMul", "Softmax")) == {
        *("n0", "n2", "n3", "n4", "n5"),
        *("n7", "n8"),
    }


def test_a_graph_that_does_not_say_where_its_front_end_ends_is_refused() -> None:
    for frontend in (None, "nowhere"):
        with pytest.raises(ExportError, match=r"does not say where its front-end ends.*Export the bundle again"):
            fp32_nodes(chain("Abs", "MatMul", "Softmax", frontend=frontend))


def test_a_graph_without_products_or_names_is_refused() -> None:
    with pytest.raises(ExportError, match="has no product"):
        fp32_nodes(chain("Abs", "Relu", "Softmax"))
    with pytest.raises(ExportError, match="have no names"):
        fp32_nodes(toy_graph(toy_weights("wav2vec2", len(LABELS)), labels=LABELS))
