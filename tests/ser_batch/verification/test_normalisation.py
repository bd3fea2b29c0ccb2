"""A trained bundle with its normalisation made wrong in one way each: `ser-batch verify` fails every one.

Trained, since untrained branches give nearly the same for every clip, whatever is wrong before them: the embedded
bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.manifest import CERTIFICATE_FILES
from ser_batch.verification.compare import Report, candidates, compare_reference
from support.bundles import reseal


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = Path(shutil.copytree(load_bundle().root, tmp_path_factory.mktemp("bundles") / "trained"))
    for name in CERTIFICATE_FILES:
        (root / name).unlink(missing_ok=True)
    reseal(root)
    return load_bundle(root)


def verified(bundle: Bundle) -> Report:
    return compare_reference(bundle, candidates(bundle, ["onnxruntime"], threads=1))


def test_the_trained_bundle_itself_passes(trained: Bundle) -> None:
    assert verified(trained).passed


Change = Callable[[onnx.ModelProto], None]


def weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in model.graph.initializer}


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def deviation(model: onnx.ModelProto) -> onnx.NodeProto:
    """The square root of the variance that the 16 kHz waveform is divided by."""
    boundary = next(entry.value for entry in model.metadata_props if entry.key == "frontend_output")
    inverse = node_of(model, node_of(model, boundary).input[1])
    root = node_of(model, inverse.input[0])
    assert (inverse.op_type, root.op_type) == ("Reciprocal", "Sqrt")
    return root


def other_floor(model: onnx.ModelProto) -> None:
    """1e-5 in place of 1e-14 as the least variance, which only quiet clips show."""
    kept = node_of(model, deviation(model).input[0])
    floor = weights(model)[kept.input[1]]
    assert kept.op_type == "Clip" and numpy_helper.to_array(floor) == pytest.approx(1e-14)
    floor.CopyFrom(numpy_helper.from_array(np.array(1e-5, np.float32), floor.name))


def leaves_the_mean(model: onnx.ModelProto) -> None:
    """None of the three subtractions of a mean, of the clip twice and of its 16 kHz waveform, has an effect."""
    boundary = next(entry.value for entry in model.metadata_props if entry.key == "frontend_output")
    last = node_of(model, node_of(model, boundary).input[0])
    centred = [node for node in model.graph.node if node.op_type == "Sub" and node.input[0] == "waveform"]
    centred += [node for node in model.graph.node if node.op_type == "Sub" and node.input[0] == centred[0].output[0]]
    assert last.op_type == "Sub" and len(centred) == 2
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "no_mean"))
    for node in (*centred, last):
        node.input[1] = "no_mean"


def not_normalised(model: onnx.ModelProto) -> None:
    boundary = next(entry.value for entry in model.metadata_props if entry.key == "frontend_output")
    last = node_of(model, boundary)
    last.CopyFrom(helper.make_node("Identity", [node_of(model, last.input[0]).input[0]], [boundary], name=last.name))


def other_mel_mean(model: onnx.ModelProto) -> None:
    mean = weights(model)["branch.standardise.mean"]
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + np.float32(1), mean.name))


def other_mel_deviation(model: onnx.ModelProto) -> None:
    std = weights(model)["branch.standardise.std"]
    std.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(std) * np.float32(1.5), std.name))


@pytest.mark.parametrize(
    ("branch", "change"),
    [
        ("wav2vec2", other_floor),
        ("wav2vec2", leaves_the_mean),
        ("wav2vec2", not_normalised),
        ("spectrogram", other_mel_mean),
        ("spectrogram", other_mel_deviation),
        ("spectrogram", not_normalised),
    ],
)
def test_a_wrong_normalisation_fails(trained: Bundle, tmp_path: Path, branch: str, change: Change) -> None:
    root = Path(shutil.copytree(trained.root, tmp_path / "bundle"))
    model = onnx.load(root / f"{branch}.onnx")
    change(model)
    onnx.checker.check_model(model)
    onnx.save(model, root / f"{branch}.onnx")
    reseal(root)
    report = verified(load_bundle(root))
    assert not report.passed
    assert any(f"onnxruntime fp32, {branch}" in reason for reason in report.failures), report.failures
