from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import ClipRule
from ser_batch.engines import onnxruntime as backend
from ser_batch.engines.onnxruntime import OnnxRuntimeEngine
from ser_batch.errors import EngineError
from support.toy import LABELS, make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)


@pytest.fixture(scope="module")
def engine(toy_bundle: Bundle) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(toy_bundle, threads=1)


def rewritten(tmp_path: Path, change: Callable[[onnx.ModelProto], Any]) -> Bundle:
    """A small toy bundle whose first branch is changed before it is sealed."""

    def edit(arguments: dict[str, Any]) -> None:
        path = arguments["files"]["wav2vec2.onnx"]
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)

    return make_toy_bundle(tmp_path / "bundle", clip=SMALL, edit=edit)


def test_it_gives_what_numpy_gives(toy_bundle: Bundle, engine: OnnxRuntimeEngine) -> None:
    reference = toy_bundle.reference()
    rows = engine.run(reference.waveform)
    assert list(rows) == ["wav2vec2", "spectrogram"]
    for name, expected in reference.branches.items():
        assert rows[name].dtype == np.float32
        np.testing.assert_allclose(rows[name], expected, atol=1e-5)


def test_a_clip_alone_gives_what_it_gives_in_a_batch(toy_bundle: Bundle, engine: OnnxRuntimeEngine) -> None:
    waveform = toy_bundle.reference().waveform
    batch = engine.run(waveform)
    for index in range(len(waveform)):
        alone = engine.run(waveform[index : index + 1])
        for name, rows in alone.items():
            np.testing.assert_allclose(rows[0], batch[name][index], atol=1e-6)


def test_a_failing_run_names_the_branch(engine: OnnxRuntimeEngine) -> None:
    with pytest.raises(EngineError, match="branch wav2vec2"):
        engine.run(np.zeros((1, 10), np.float32))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"input_name": "audio"}, r"the input .* got audio \['batch', 8000\] float32; expected waveform"),
        (
            {"output_name": "logits_"},
            r"the output .* got logits_ \['batch', 8\] float32; expected probabilities",
        ),
        ({"metadata_labels": LABELS[::-1]}, "permuted labels"),
        ({"metadata_labels": ("a", "b")}, "other labels"),
    ],
)
def test_another_graph_than_the_manifest_states_is_refused(tmp_path: Path, graph: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxRuntimeEngine(make_toy_bundle(tmp_path / "bundle", clip=SMALL, **graph))


def test_a_graph_without_labels_is_taken(tmp_path: Path) -> None:
    OnnxRuntimeEngine(make_toy_bundle(tmp_path / "bundle", clip=SMALL, metadata_labels=None))


def test_labels_permuted_in_the_manifest_alone_are_caught(tmp_path: Path) -> None:
    root = make_toy_bundle(tmp_path / "bundle", clip=SMALL).root
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["labels"][0], manifest["labels"][1] = manifest["labels"][1], manifest["labels"][0]
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="permuted labels"):
        OnnxRuntimeEngine(load_bundle(root))


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 8]))


def to_double(model: onnx.ModelProto) -> None:
    del model.graph.output[:]
    model.graph.node.append(onnx.helper.make_node("Cast", ["probabilities"], ["double"], to=onnx.TensorProto.DOUBLE))
    model.graph.output.append(onnx.helper.make_tensor_value_info("double", onnx.TensorProto.DOUBLE, ["batch", 8]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fix_batch, r"the input .* got waveform \[1, 8000\]"),
        (add_output, r"the output .* logits \['batch', 8\]"),
        (to_double, r"the output .* tensor\(double\)"),
        (lambda model: model.metadata_props[0].__setattr__("value", "not json"), "other labels"),
    ],
)
def test_a_changed_graph_is_refused(tmp_path: Path, change: Callable[[onnx.ModelProto], Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxRuntimeEngine(rewritten(tmp_path, change))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    bundle = make_toy_bundle(
        tmp_path / "bundle",
        clip=SMALL,
        edit=lambda a: a["files"]["wav2vec2.onnx"].write_bytes(b"not a graph"),
    )
    with pytest.raises(EngineError, match="refuses"):
        OnnxRuntimeEngine(bundle)


def test_where_it_is_not_installed_the_extra_is_named(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'ser-batch[cpu]'" in (backend.unavailable() or "")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"ser-batch\[cpu\]"):
        OnnxRuntimeEngine(toy_bundle)


def test_a_closed_engine_does_not_run(toy_bundle: Bundle) -> None:
    closed = OnnxRuntimeEngine(toy_bundle, threads=1)
    closed.close()
    with pytest.raises(EngineError):
        closed.run(np.zeros((1, 144_000), np.float32))
