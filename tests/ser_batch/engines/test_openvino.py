from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from ser_batch.audio.reader import read_clip
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule
from ser_batch.engines import openvino as backend
from ser_batch.engines import openvino_graph
from ser_batch.engines.onnxruntime import OnnxRuntimeEngine
from ser_batch.engines.openvino import OpenVinoEngine
from ser_batch.errors import EngineError
from support.toy import LABELS, make_toy_bundle, toy_graph, toy_weights

openvino = pytest.importorskip("openvino", reason="openvino is not installed")
SMALL = ClipRule(sample_rate=8_000, samples=8_000)
needs_bf16 = pytest.mark.skipif(backend.unsupported("bf16") is not None, reason="this CPU has no bf16 instructions")
EACH_PRECISION = pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])


def hint(model: Any) -> str:
    return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())


def executed(model: Any) -> list[tuple[str, str]]:
    """Kind and precision of each node that OpenVINO runs, in order."""
    infos = [node.get_rt_info() for node in model.get_runtime_model().get_ordered_ops()]
    return [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]


def test_fp32_gives_what_onnx_runtime_gives(toy_bundle: Bundle) -> None:
    waveform = toy_bundle.reference().waveform
    found = OpenVinoEngine(toy_bundle, threads=1).run(waveform)
    expected = OnnxRuntimeEngine(toy_bundle, threads=1).run(waveform)
    assert list(found) == list(expected)
    for name, rows in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], rows, atol=1e-5)


@EACH_PRECISION
def test_the_precision_is_asked_for_and_not_left_to_openvino(toy_bundle: Bundle, precision: str) -> None:
    engine = OpenVinoEngine(toy_bundle, threads=1, precision=precision)
    expected = ["f32"] if precision == "fp32" else ["f32", "bf16"]
    assert engine.precision == precision
    assert [[hint(model) for model in stages] for stages in engine._stages.values()] == [expected] * 2


@EACH_PRECISION
def test_a_clip_alone_and_in_streams_gives_what_it_gives_in_a_batch(toy_bundle: Bundle, precision: str) -> None:
    waveform = toy_bundle.reference().waveform
    batch = OpenVinoEngine(toy_bundle, threads=1, precision=precision).run(waveform)
    streams = OpenVinoEngine(toy_bundle, threads=2, precision=precision, batch=4)
    for rows in (streams.run(waveform), streams.run(waveform[:1])):
        for name in rows:
            np.testing.assert_allclose(rows[name], batch[name][: len(rows[name])], atol=1e-6)


@pytest.mark.parametrize(("batch", "held"), [(1, 1), (2, 2), (3, 3), (16, 4)])
def test_graphs_hold_a_fixed_number_of_clips_and_any_batch_is_cut_to_it(
    toy_bundle: Bundle, batch: int, held: int
) -> None:
    engine = OpenVinoEngine(toy_bundle, threads=1, batch=batch)
    shapes = {model.input(0).shape[0] for stages in engine._stages.values() for model in stages}
    assert shapes == {held}
    waveform = toy_bundle.reference().waveform[:5]
    expected = OnnxRuntimeEngine(toy_bundle, threads=1).run(waveform)
    for count in (1, 2, 5):
        for name, rows in engine.run(waveform[:count]).items():
            assert len(rows) == count
            np.testing.assert_allclose(rows, expected[name][:count], atol=1e-5)


def test_importing_openvino_reports_nothing_to_anybody() -> None:
    code = """
import sys
from ser_batch.engines.openvino import _core
_core()
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_inferences_of_a_process_may_be_in_streams(toy_bundle: Bundle) -> None:
    code = f"""
import sys
from pathlib import Path
sys.setswitchinterval(1e-7)
from ser_batch.engines import open_engine
from ser_batch.bundle.bundle import load_bundle
bundle = load_bundle(Path({str(toy_bundle.root)!r}))
engine = open_engine(bundle, "openvino", threads=4, batch=64)
engine.run(bundle.reference().waveform)
"""
    # Without `_prime`, one in eight such processes hung with the default bundle; threads change hands often here.
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@needs_bf16
def test_bf16_is_close_on_the_toy(toy_bundle: Bundle) -> None:
    reference = toy_bundle.reference()
    for name, rows in OpenVinoEngine(toy_bundle, threads=1, precision="bf16").run(reference.waveform).items():
        difference = np.abs(rows - reference.branches[name]).max()
        assert 1e-6 < difference < 2e-2, "bf16 was not used, or is wrong"


@needs_bf16
def test_a_graph_without_a_front_end_s_end_is_refused_in_bf16_alone(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL, frontend=None)
    OpenVinoEngine(bundle, threads=1)
    with pytest.raises(EngineError, match=r"does not say where its front-end ends.*Export the bundle again"):
        OpenVinoEngine(bundle, threads=1, precision="bf16")


@needs_bf16
def test_a_front_end_that_ends_nowhere_is_refused(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL, frontend="nowhere")
    with pytest.raises(EngineError, match="has no tensor 'nowhere'"):
        OpenVinoEngine(bundle, threads=1, precision="bf16")


@needs_bf16
def test_a_network_that_reads_the_batch_size_off_the_waveform_still_runs(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        path = arguments["files"]["wav2vec2.onnx"]
        model = toy_graph(toy_weights("wav2vec2", len(LABELS)), SMALL.samples, labels=LABELS)
        graph = model.graph
        softmax = graph.node.pop()
        classes = onnx.numpy_helper.from_array(np.array([len(LABELS)], np.int64), "classes")
        graph.initializer.append(classes)
        graph.node.extend(
            [
                helper.make_node("Shape", ["waveform"], ["batch"], start=0, end=1),
                helper.make_node("Concat", ["batch", "classes"], ["wanted"], axis=0),
                helper.make_node("Reshape", ["logits", "wanted"], ["shaped"]),
                helper.make_node("Softmax", ["shaped"], list(softmax.output), axis=1),
            ]
        )
        onnx.save(model, path)

    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL, edit=edit)
    reference = bundle.reference()
    rows = OpenVinoEngine(bundle, threads=2, precision="bf16", batch=4).run(reference.waveform[:3])
    np.testing.assert_allclose(rows["wav2vec2"], reference.branches["wav2vec2"][:3], atol=2e-2)


@needs_bf16
def test_exported_branches_keep_front_end_and_softmax_in_fp32(exported_bundle: Bundle) -> None:
    engine = OpenVinoEngine(exported_bundle, threads=1, precision="bf16")
    for name, (frontend, network) in engine._stages.items():
        assert "BF16" not in {kind.upper() for _, kind in executed(frontend)}, name
        assert any(kind == "bf16" for _, kind in executed(network)), name
    # The softmax may be part of a larger node, so it is judged by its rows: in bf16 they would sum to 1 within 4e-3.
    for name, rows in engine.run(exported_bundle.reference().waveform).items():
        np.testing.assert_allclose(rows.sum(axis=1, dtype=np.float64), 1, atol=1e-6, err_msg=name)
        assert (rows.view(np.uint32) & 0xFFFF).any(axis=1).all(), f"{name}: no probability has more bits than bf16"


@EACH_PRECISION
def test_exported_branches_with_random_weights_agree_with_torch(exported_bundle: Bundle, precision: str) -> None:
    reference = exported_bundle.reference()
    rows = OpenVinoEngine(exported_bundle, threads=1, precision=precision).run(reference.waveform)
    for name, expected in reference.branches.items():
        # Measured: 1e-6 in fp32; in bf16, of random weights, 2.4e-2 in the spectrogram branch (a bundle may have 5e-2).
        assert np.abs(rows[name] - expected).max() <= {"fp32": 1e-4, "bf16": 4e-2}[precision], name


@needs_bf16
def test_the_log_mel_of_a_pure_tone_is_rounded_as_onnx_runtime_rounds_it(exported_bundle: Bundle) -> None:
    waveform = synthetic_clips(exported_bundle.manifest.clip)
    frontend = OpenVinoEngine(exported_bundle, threads=1, precision="bf16")._stages["spectrogram"][0]
    graph = onnx.load(exported_bundle.path("spectrogram.onnx"))
    (boundary,) = (entry.value for entry in graph.metadata_props if entry.key == "frontend_output")
    graph.graph.output.append(helper.make_tensor_value_info(boundary, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    expected = session.run([boundary], {"waveform": waveform})[0]
    found = np.concatenate([frontend([clip[None]])[0] for clip in waveform])
    # In decibels; with sums and products fused, 0.1.
    assert np.abs(found - expected).max() < 1e-3


@needs_bf16
@pytest.mark.shared
def test_the_log_mel_of_real_speech_is_exact_in_bf16_too(exported_bundle: Bundle, ravdess: Path) -> None:
    files = sorted(ravdess.glob("Actor_*/*"))[::180]
    waveform = np.stack([read_clip(path, exported_bundle.manifest.clip).waveform for path in files])
    frontend = OpenVinoEngine(exported_bundle, threads=1, precision="bf16")._stages["spectrogram"][0]
    found = np.concatenate([frontend([clip[None]])[0] for clip in waveform])
    core = openvino.Core()
    path = exported_bundle.path("spectrogram.onnx")
    model = core.read_model(path)
    boundary = backend._metadata(model, "frontend_output")
    assert boundary is not None
    whole = openvino_graph.frontend(model, boundary, path)
    settings = {"INFERENCE_NUM_THREADS": 1}
    careless = core.compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", **settings})
    exact = core.compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **settings})([waveform])[0]
    # The toy run's statistics are mean 0 and deviation 1, so these are decibels.
    assert np.abs(found - exact).max() < 1e-3
    assert np.abs(careless([waveform])[0] - exact).max() > 1, "bf16 does no harm here: the cut can go"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"input_name": "audio"}, r"the input .* got audio \['batch', 8000\] float32; expected waveform"),
        ({"output_name": "logits_"}, r"the output .* got logits_ \['batch', 8\] float32; expected probabilities"),
        ({"metadata_labels": LABELS[::-1]}, "permuted labels"),
        ({"metadata_labels": ("a", "b")}, "other labels"),
    ],
)
def test_another_graph_than_the_manifest_states_is_refused(tmp_path: Path, graph: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        OpenVinoEngine(make_toy_bundle(tmp_path / "bundle", clip=SMALL, **graph))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        arguments["files"]["wav2vec2.onnx"].write_bytes(b"not a graph")

    with pytest.raises(EngineError, match=r"OpenVINO refuses .*wav2vec2\.onnx"):
        OpenVinoEngine(make_toy_bundle(tmp_path / "bundle", clip=SMALL, edit=edit))


def test_an_unknown_precision_is_refused(toy_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="no such precision here; got int4; expected fp32 or bf16"):
        OpenVinoEngine(toy_bundle, precision="int4")


def test_a_cpu_without_bf16_is_told(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "unsupported", lambda precision: "this CPU has no bf16 instructions")
    with pytest.raises(EngineError, match=r"no bf16 instructions.*--precision fp32"):
        OpenVinoEngine(toy_bundle, precision="bf16")


def test_where_it_is_not_installed_the_extra_is_named(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'ser-batch[openvino]'" in (backend.unavailable() or "")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"ser-batch\[openvino\]"):
        OpenVinoEngine(toy_bundle)


def test_a_failing_run_names_the_branch_and_a_closed_engine_does_not_run(toy_bundle: Bundle) -> None:
    engine = OpenVinoEngine(toy_bundle, threads=1)
    with pytest.raises(EngineError, match="branch wav2vec2"):
        engine.run(np.zeros((1, 10), np.float32))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 144_000), np.float32))
