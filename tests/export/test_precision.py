"""`quantize`: every precision of a real export, in one bundle that every runtime opens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.cli import main
from export.float_precision import to_float_precision
from export.precision import PRECISIONS, lower, quantize
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import ClipRule
from ser_batch.command_line import USAGE
from ser_batch.engines import available_backends, open_engine, precisions
from ser_batch.errors import BundleError, EngineError, ExportError, InputError, OutputError
from ser_batch.verification.metadata import read_metadata
from support.toy import make_toy_bundle
from support.toy_speech import write_speech

LOWER = [precision for precision in PRECISIONS if precision != "fp32"]


@pytest.fixture(scope="module")
def speech(exported_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"), exported_bundle.manifest.clip)


@pytest.fixture(scope="module")
def quantised(exported_bundle: Bundle, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of `exported_bundle` with graphs in every precision."""
    out = tmp_path_factory.mktemp("quantised") / "bundle"
    asked = [argument for precision in LOWER for argument in ("--precision", precision)]
    done = main(["quantize", str(exported_bundle.root), *asked, "--calibration", str(speech), "--out", str(out)])
    assert done == 0
    return load_bundle(out)


def test_the_copy_is_the_same_model_with_more_graphs(quantised: Bundle, exported_bundle: Bundle) -> None:
    assert quantised.id == exported_bundle.id
    added = set(quantised.manifest.files) - set(exported_bundle.manifest.files)
    assert added == {f"precisions/{p}/{b.name}.onnx" for p in LOWER for b in quantised.manifest.branches}
    assert load_bundle(exported_bundle.root).manifest == exported_bundle.manifest


@pytest.mark.parametrize("precision", LOWER)
def test_a_graph_says_what_it_is_and_what_it_was_made_from(quantised: Bundle, precision: str) -> None:
    for branch in quantised.manifest.branches:
        found, source = (read_metadata(quantised.graph(branch, p)) for p in (precision, "fp32"))
        assert found["precision"] == precision
        assert found["source_sha256"] == quantised.manifest.files[branch.file]
        assert json.loads(found["labels"]) == list(quantised.labels)
        assert found["opset"] == str(onnx.load(quantised.graph(branch, precision)).opset_import[0].version)
        for key in ("branch", "frontend_output"):
            assert found[key] == source[key]
        assert found.get("calibration") == ("range of 5 recordings" if precision == "int8" else None)
        assert [p.name for p in quantised.graph(branch, precision).parent.iterdir() if p.suffix != ".onnx"] == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_one_int8_graph_serves_every_runtime(quantised: Bundle, backend: str) -> None:
    if available_backends()[backend] is not None:
        pytest.skip(f"{backend} is not installed")
    reference = quantised.reference()
    engine = open_engine(quantised, backend, threads=1, precision="int8")
    assert engine.precision == "int8"
    for name, rows in engine.run(reference.waveform).items():
        difference = np.abs(rows - reference.branches[name]).max()
        assert 1e-6 < difference < 5e-2, "int8 was not used, or is wrong"
    engine.close()


def test_onnx_runtime_says_what_its_cpu_provider_cannot(quantised: Bundle) -> None:
    found = precisions("onnxruntime")
    assert found["fp32"] is None and found["int8"] is None
    for precision in ("fp16", "bf16"):
        assert f"no {precision} arithmetic" in str(found[precision])
        with pytest.raises(EngineError, match=f"no {precision} arithmetic"):
            open_engine(quantised, "onnxruntime", threads=1, precision=precision)


def test_a_bundle_without_the_graphs_says_how_to_make_them(exported_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no int8 graph.*ser-export quantize .* --precision int8"):
        open_engine(exported_bundle, "onnxruntime", threads=1, precision="int8")


def test_graphs_that_are_there_are_made_again_only_if_that_is_asked_for(quantised: Bundle) -> None:
    with pytest.raises(OutputError, match="already"):
        quantize(quantised, ["fp16"])
    assert quantize(quantised, ["fp16"], replace=True).manifest == quantised.manifest


def test_requests_that_cannot_be_met_are_refused_before_any_work(exported_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such precision; got fp8"):
        quantize(exported_bundle, ["fp8"])
    with pytest.raises(ExportError, match=r"without recorded speech.*--calibration"):
        quantize(exported_bundle, ["int8"])
    with pytest.raises(InputError, match="no audio found"):
        quantize(exported_bundle, ["int8"], calibration=tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        quantize(exported_bundle, [], out=exported_bundle.root)
    assert load_bundle(exported_bundle.root).manifest == exported_bundle.manifest


def test_a_graph_that_is_not_what_was_trained_is_refused(
    exported_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
        spoilt = to_float_precision(model, precision)
        weight = max(spoilt.graph.initializer, key=lambda w: len(w.raw_data) if w.data_type == 10 else 0)
        weight.raw_data = np.full(len(weight.raw_data) // 2, 3e4, np.float16).tobytes()
        return spoilt

    monkeypatch.setattr(sys.modules["export.precision"], "to_float_precision", spoil)
    with pytest.raises(ExportError, match=r"branch wav2vec2 is (not finite|too far from torch) .*fp16"):
        lower(exported_bundle, exported_bundle.manifest.branches[0], "fp16")


def test_the_embedded_bundle_is_not_changed_without_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--precision", "fp16"]) == USAGE
    assert "Give --out" in capsys.readouterr().err


def test_a_bundle_whose_graphs_cannot_be_converted_stays_as_it_is(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=ClipRule(samples=24_000))
    assert main(["quantize", str(bundle.root), "--precision", "fp16", "--out", str(tmp_path / "copy")]) == USAGE
    assert not (tmp_path / "copy").exists() and load_bundle(bundle.root).manifest == bundle.manifest
