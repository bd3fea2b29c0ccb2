"""Building engines: with the real TensorRT for RTX, which needs no GPU, and with a native one that is not there."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import export.tensorrt
from export.cli import USAGE, main
from export.tensorrt import build_engines, choose_library, timing_cache_path
from export.tensorrt_builder import Request, Target, build_engine, parse_target, supported_capabilities
from ser_batch.bundle.bundle import Bundle, default_root, load_bundle
from ser_batch.clips import ClipRule
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.tensorrt.engine import open_on
from ser_batch.engines.tensorrt.library import NATIVE, RTX, load
from ser_batch.engines.tensorrt.sidecar import read_sidecars
from ser_batch.errors import BundleError, EngineError, ExportError, OutputError
from support.fake_gpu import FakeDevice
from support.fake_tensorrt import FakeTensorRt
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=800)
needs_rtx = pytest.mark.skipif(not RTX.installed(), reason="TensorRT for RTX is not installed")
ADA = Target("ada", ("8.9",))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRt:
    """Native TensorRT on a fake GPU, and a cache of its own."""
    trt = FakeTensorRt(FakeDevice())
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(export.tensorrt, "no_gpu", lambda: None)
    monkeypatch.setattr(export.tensorrt, "open_cuda_device", lambda: FakeDevice())
    return trt


def build(bundle: Bundle, **options: Any) -> Any:
    return build_engines(bundle, **{"precision": "fp32", "batches": (8, 1), "runtime": "trt-rtx"} | options)


def graph_of(tmp_path: Path, operator: str) -> Path:
    """A graph of one operator."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 80]) for name in ("waveform", "out")]
    node = helper.make_node(operator, ["waveform"], ["out"], name="culprit")
    graph = helper.make_graph([node], "one", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


@needs_rtx
def test_rtx_builds_a_bundle_ahead_of_time_and_seals_it(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    root, before = bundle.root, bundle
    assert main(["trt", str(root), "--runtime", "trt-rtx", "--batch", "8,1"]) == 0
    assert "trt-rtx" in (shown := capsys.readouterr().out) and "wav2vec2: " in shown and "spectrogram: " in shown
    after = load_bundle(root)
    assert after.id == before.id
    (sidecar,) = read_sidecars(after)
    assert sidecar.folder == "engines/trt-rtx-fp32-ampere-ada-blackwell/"
    assert sidecar.compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert (sidecar.profiles, sidecar.precision, sidecar.gpu) == ((1, 8), "fp32", None)
    assert sidecar.runtime_version == load(RTX).__version__ and sidecar.cuda == "13"
    for branch in after.manifest.branches:
        assert sidecar.onnx_sha256[branch.name] == after.manifest.files[branch.file]
        assert after.path(sidecar.engine(branch.name)).stat().st_size > 1_000
    assert main(["trt", str(root), "--runtime", "trt-rtx", "--batch", "8,1"]) == USAGE
    assert "already. Build it again: --replace" in capsys.readouterr().err


@needs_rtx
@pytest.mark.slow
def test_rtx_builds_base_size(tmp_path: Path) -> None:
    from bench.peers.models import random_model

    built = build(random_model(tmp_path / "base", "base").bundle, batches=(1, 8, 64))
    assert built.sizes["wav2vec2"] > 94_000_000 * 4 and built.sizes["spectrogram"] > 1_000_000


@needs_rtx
@pytest.mark.slow
def test_rtx_builds_the_default_bundle(tmp_path: Path) -> None:
    root = Path(shutil.copytree(default_root(), tmp_path / "bundle"))
    built = build(load_bundle(root), batches=(8, 1))
    assert set(built.sizes) == {"wav2vec2", "spectrogram"} and min(built.sizes.values()) > 1_000_000


@needs_rtx
@pytest.mark.slow
def test_rtx_builds_the_default_bundle_in_half_precisions(tmp_path: Path) -> None:
    from export.precision import quantize

    lowered = quantize(load_bundle(), ["fp16", "bf16"], out=tmp_path / "bundle")
    for precision in ("fp16", "bf16"):
        lowered = build(lowered, precision=precision, batches=(8,)).bundle
    assert {sidecar.precision for sidecar in read_sidecars(lowered)} == {"fp16", "bf16"}


@needs_rtx
@pytest.mark.slow
@pytest.mark.shared
def test_rtx_builds_the_default_bundle_in_int8(tmp_path: Path, ravdess: Path) -> None:
    from export.precision import quantize

    lowered = quantize(load_bundle(), ["int8"], calibration=ravdess / "Actor_01", out=tmp_path / "bundle")
    assert build(lowered, precision="int8", batches=(8,)).sizes["wav2vec2"] > 1_000_000


@needs_rtx
def test_named_gpus_only_and_progress(bundle: Bundle) -> None:
    steps: list[tuple[str, str, int, int]] = []
    built = build(bundle, gpus=["ADA", "8.0"], progress=lambda *step: steps.append(step))
    assert built.sidecar.target == "ada-80" and built.sidecar.compute_capabilities == ("8.9", "8.0")
    assert {step[0] for step in steps} == {"wav2vec2", "spectrogram"}
    assert all(0 <= done <= max(count, done) for _, _, done, count in steps) and len(steps) > 10
    assert any(phase == "Building engine" and done == count > 0 for _, phase, done, count in steps)


@needs_rtx
def test_ctrl_c_cancels_a_build_and_leaves_the_bundle_alone(bundle: Bundle) -> None:
    def press(*step: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bundle, progress=press)
    assert load_bundle(bundle.root).manifest == bundle.manifest


@needs_rtx
@pytest.mark.parametrize(
    ("gpu", "error", "message"),
    [
        ("hopper", ExportError, r"does not build for compute capability 9\.0; got hopper; .*native TensorRT"),
        ("9.0", ExportError, r"does not build for compute capability 9\.0"),
        ("turing", ExportError, r"7\.5 has no fp32 matrix products.*got .*FP32 GEMM is not supported.*Leave --gpu"),
        ("volta", ExportError, r"no such GPU generation or compute capability; got volta; expected turing, ampere"),
    ],
)
def test_what_rtx_cannot_build_for(bundle: Bundle, gpu: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(bundle, gpus=[gpu])
    assert load_bundle(bundle.root).manifest == bundle.manifest


@needs_rtx
def test_rtx_knows_the_generations_that_are_named() -> None:
    trt = load(RTX)
    assert supported_capabilities(trt) == ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    assert parse_target([], trt) == parse_target(["ampere", "ada", "blackwell"], trt)


@needs_rtx
def test_an_unsupported_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not support a node .Det culprit. of branch toy; got .*Det"):
        build_engine(load(RTX), Request("toy", graph_of(tmp_path, "Det"), (1,), ADA))


@needs_rtx
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"refuses branch toy; got .*parse the ONNX model"):
        build_engine(load(RTX), Request("toy", tmp_path / "g.onnx", (1,), ADA))


@pytest.mark.parametrize(("version", "strongly_typed"), [("10.12.0.36", 1), ("11.4.0.106", 0)])
def test_native_takes_the_same_path(bundle: Bundle, native: FakeTensorRt, version: str, strongly_typed: int) -> None:
    native.__version__ = version
    native.NetworkDefinitionCreationFlag.STRONGLY_TYPED = strongly_typed
    built = build(bundle, runtime="auto")
    assert [network.flags for network, _ in native.built] == [1 << strongly_typed] * 2
    for _, config in native.built:
        assert config.flags == set()
        assert config.profiles == [[(1, 800)] * 3, [(8, 800)] * 3]
    sidecar = built.sidecar
    assert (sidecar.runtime, sidecar.runtime_version, sidecar.target) == ("trt", version, "sm89")
    assert (sidecar.gpu, sidecar.compute_capabilities) == ("Fake GPU", ("8.9",))


def test_native_measures_once(bundle: Bundle, native: FakeTensorRt) -> None:
    sidecar = build(bundle, runtime="trt").sidecar
    assert timing_cache_path(sidecar).read_bytes() == b"measured;" * 2
    assert [config.cache.content for _, config in native.built] == [b"", b"measured;"]
    build(bundle, runtime="trt", replace=True)
    assert timing_cache_path(sidecar).read_bytes() == b"measured;" * 4


@pytest.mark.parametrize(
    ("attribute", "said", "message"),
    [
        ("refuses_build", "Requested size 9 GB: Out of memory", r"out of memory while building .*\(--batch\)"),
        ("refuses_build", "Internal: no tactic", "TensorRT refuses branch wav2vec2; got Internal: no tactic"),
        ("refuses_builder", "CUDA initialization failure with error: 35", "no usable NVIDIA driver.*trt-rtx"),
    ],
)
def test_what_native_refuses(bundle: Bundle, native: FakeTensorRt, attribute: str, said: str, message: str) -> None:
    setattr(native, attribute, said)
    with pytest.raises(ExportError, match=message):
        build(bundle, runtime="trt")


def test_native_needs_the_gpu_it_builds_for(
    bundle: Bundle, native: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.tensorrt, "no_gpu", lambda: "there is no NVIDIA driver")
    with pytest.raises(ExportError, match=r"there is no NVIDIA driver\. .*for named GPUs: --runtime trt-rtx"):
        build(bundle, runtime="trt")


def test_native_takes_no_named_gpu(bundle: Bundle, native: FakeTensorRt) -> None:
    with pytest.raises(ExportError, match="builds for the GPU that is here, not for named ones; got ada"):
        build(bundle, runtime="trt", gpus=["ada"])


def test_an_old_native_is_refused(bundle: Bundle, native: FakeTensorRt) -> None:
    native.__version__ = "10.9.0.34"
    with pytest.raises(ExportError, match=r"too old; got 10\.9\.0\.34; expected 10\.12"):
        build(bundle, runtime="trt")


def test_auto_takes_native_where_it_is(native: FakeTensorRt) -> None:
    assert choose_library("auto") is NATIVE


@needs_rtx
@pytest.mark.skipif(NATIVE.installed() is not None, reason="native TensorRT is installed")
def test_auto_takes_rtx_where_native_is_not() -> None:
    assert choose_library("auto") is RTX


def test_where_no_library_is_both_are_offered(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = r"no TensorRT is installed.*\. Native .*ser-batch\[trt\].*without a GPU: .*ser-batch\[trt-rtx\]"
    with pytest.raises(ExportError, match=missing):
        choose_library("auto")
    with pytest.raises(EngineError, match=r"TensorRT is not installed. Install it: pip install 'ser-batch\[trt\]'"):
        build(bundle, runtime="trt")


def test_a_library_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch, native: FakeTensorRt) -> None:
    def broken(name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(EngineError, match="TensorRT cannot be imported; got libnvinfer"):
        load(NATIVE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"runtime": "tensorrt"}, ExportError, "no such runtime; got tensorrt; expected auto, trt, trt-rtx"),
        ({"batches": ()}, ExportError, "batch sizes of at least 1"),
        ({"precision": "fp16"}, BundleError, "no fp16 graph of branch wav2vec2.*ser-export quantize"),
    ],
)
def test_what_is_asked_wrongly(bundle: Bundle, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(bundle, **options)


def test_a_copy_gets_the_engines_and_the_bundle_stays(bundle: Bundle, native: FakeTensorRt, tmp_path: Path) -> None:
    built = build(bundle, runtime="trt", out=tmp_path / "copy")
    assert built.bundle.root == tmp_path / "copy" and read_sidecars(load_bundle(tmp_path / "copy")) == (built.sidecar,)
    assert load_bundle(bundle.root).manifest == bundle.manifest
    with pytest.raises(OutputError, match="exists already"):
        build(bundle, runtime="trt", out=tmp_path / "copy")
    assert len(native.built) == 2


@pytest.fixture
def embedded(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bundle:
    """A small bundle as the embedded one, and a data folder of its own."""
    monkeypatch.setattr("ser_batch.bundle.bundle.default_root", lambda: bundle.root)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return bundle


def test_engines_of_the_embedded_bundle_go_to_the_users_data_and_are_found_there(
    embedded: Bundle, native: FakeTensorRt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match=r"has no TensorRT engines in fp32. Build them: ser-export trt --precision"):
        open_on(native.device, load_bundle(), "fp32")
    assert main(["trt"]) == 0
    home = tmp_path / "data" / "ser-batch" / "bundles" / embedded.id
    shown = capsys.readouterr().out
    assert f"in {home}/engines/trt-fp32-sm89" in shown
    assert "next: ser-batch run AUDIO --out preds.parquet --backend trt\n" in shown
    assert load_bundle().manifest == embedded.manifest, "the program is not written to"
    assert load_bundle(home).id == embedded.id
    engine = open_on(native.device, load_bundle(), "fp32")
    assert engine.precision == "fp32"
    engine.close()
    assert main(["trt", "--batch", "2"]) == USAGE
    assert "already. Build it again: --replace" in capsys.readouterr().err
    assert main(["trt", "--batch", "2", "--replace"]) == 0
    assert read_sidecars(load_bundle(home))[0].profiles == (2,)


def test_engines_for_elsewhere_say_how_to_get_there(
    embedded: Bundle, native: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(load_bundle(), runtime="trt")
    monkeypatch.setattr(export.tensorrt, "no_gpu", lambda: "there is no NVIDIA driver; install one")
    assert built.next_step == (
        "next, on a machine with such a GPU (here there is no NVIDIA driver): "
        f"copy {built.bundle.root} there, and ser-batch run AUDIO --out preds.parquet --backend trt --bundle COPY"
    )


@needs_rtx
def test_rtx_builds_the_embedded_bundle_without_a_word(
    embedded: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trt", "--runtime", "trt-rtx"]) == 0
    (sidecar,) = read_sidecars(load_bundle(tmp_path / "data" / "ser-batch" / "bundles" / embedded.id))
    assert (sidecar.target, sidecar.profiles) == ("ampere-ada-blackwell", (1, 8, 64))


def test_batch_sizes_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("1,x", "0", "", "1,,2"):
        assert main(["trt", "--batch", wrong]) == USAGE
        assert "not of the form 1,8,64" in capsys.readouterr().err


@needs_rtx
def test_a_bundle_that_cannot_be_written_is_left_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(export.tensorrt, "add_artefacts", full)
    with pytest.raises(OutputError, match="disk is full"):
        build(bundle)
    assert json.loads((bundle.root / "manifest.json").read_text())["files"] == dict(bundle.manifest.files)


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
@needs_rtx
def test_sidecars_say_that_there_was_no_driver(bundle: Bundle) -> None:
    assert build(bundle).sidecar.driver is None
