"""`verify` on bundles that are broken in one way each; the toy graphs and their reference share no code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Fusion
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, EngineError
from ser_batch.verification import compare as comparing
from ser_batch.verification.compare import Comparison, Report, candidates, compare, compare_reference
from ser_batch.verification.records import TOLERANCES
from support import toy
from support.toy import BRANCHES, LABELS, make_toy_bundle, toy_fusion, toy_graph, toy_weights

CLIP = ClipRule(samples=24_000)
PERMUTED = (LABELS[1], LABELS[0], *LABELS[2:])
Edit = Callable[[dict[str, Any]], None]


def broken(path: Path, edit: Edit | None = None, **options: Any) -> Report:
    bundle = make_toy_bundle(path / "bundle", clip=CLIP, edit=edit, **options)
    # One runtime, the one that is there in every development install: what fails is the bundle.
    reasons = comparing.available_backends()
    return verify(bundle, ["onnxruntime"] if reasons["onnxruntime"] is None else None)


def verify(bundle: Bundle, backends: list[str] | None = None) -> Report:
    return compare_reference(bundle, candidates(bundle, backends))


def replace_graphs(change: Callable[[str], onnx.ModelProto]) -> Edit:
    """Put other graphs in the place of the toy's."""

    def edit(arguments: dict[str, Any]) -> None:
        for file, path in arguments["files"].items():
            onnx.save(change(Path(file).stem), path)

    return edit


def set_field(**fields: Any) -> Edit:
    return lambda arguments: arguments.update(fields)


def test_a_sound_bundle_passes_and_everything_was_compared(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=CLIP)
    report = verify(bundle)
    assert report.passed and not report.failures
    assert report.bundle == bundle.id
    assert [(c.engine, c.precision, c.output) for c in report.comparisons if c.engine == "onnxruntime"] == [
        ("onnxruntime", "fp32", output) for output in (*BRANCHES, "fused")
    ]
    for comparison in report.comparisons:
        assert comparison.rows == 2 * len(bundle.reference().waveform)
        assert comparison.max_difference is not None and comparison.non_finite == 0
        if comparison.precision == "fp32":
            assert 0 < comparison.max_difference < 1e-5 and comparison.flips == 0
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is True


@pytest.mark.parametrize("shift", [2e-3, 0.05])
def test_a_difference_over_the_tolerance_fails(tmp_path: Path, shift: float) -> None:
    def weights(name: str) -> np.ndarray:
        return toy_weights(name, len(LABELS)) * np.float32(1 + shift)

    report = broken(tmp_path, replace_graphs(lambda name: toy_graph(weights(name), CLIP.samples, labels=LABELS)))
    assert {reason.split(":")[0] for reason in report.failures} >= {f"onnxruntime fp32, {name}" for name in BRANCHES}
    assert all("over the tolerance of 1e-04" in r or "labels are others" in r for r in report.failures)


def test_a_front_end_that_differs_only_on_quiet_clips_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_floor(name: str) -> onnx.ModelProto:
        with monkeypatch.context() as patch:
            patch.setattr(toy, "LOG_FLOOR", 1e-5)
            return toy_graph(toy_weights(name, len(LABELS)), CLIP.samples, labels=LABELS)

    assert not broken(tmp_path, replace_graphs(other_floor)).passed


def test_values_that_are_not_finite_fail_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_floor(name: str) -> onnx.ModelProto:
        with monkeypatch.context() as patch:
            patch.setattr(toy, "LOG_FLOOR", 0.0)
            return toy_graph(toy_weights(name, len(LABELS)), CLIP.samples, labels=LABELS)

    report = broken(tmp_path, replace_graphs(no_floor))
    found = {c.output: c for c in report.comparisons}
    # Silence has no logarithm: the clip of zeros, and with its zeros at the end the short utterance.
    assert found["wav2vec2"].non_finite >= 2 * len(LABELS)
    assert found["fused"].flips >= 2
    assert any("onnxruntime fp32, wav2vec2:" in r and "are not finite" in r for r in report.failures)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"edit": set_field(labels=PERMUTED)}, "wav2vec2.onnx has permuted labels"),
        ({"metadata_labels": PERMUTED}, "spectrogram.onnx has permuted labels"),
        ({"metadata_labels": tuple("abcdefgh")}, "wav2vec2.onnx has other labels"),
        ({"metadata_labels": None}, "wav2vec2.onnx has no labels"),
        ({"metadata_labels": None, "edit": set_field(labels=PERMUTED)}, "has no labels"),
        (
            # Permuted in the manifest and the graphs alike: only the training run's record knows.
            {"metadata_labels": PERMUTED, "edit": set_field(labels=PERMUTED, provenance={"labels": list(LABELS)})},
            "the training run's record has permuted labels",
        ),
    ],
    ids=["manifest", "graphs", "other labels", "no labels", "no labels, manifest permuted", "all but the record"],
)
def test_permuted_labels_fail(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    report = broken(tmp_path, **options)
    assert any(reason in failure for failure in report.failures), report.failures


def test_permuted_columns_in_a_graph_fail(tmp_path: Path) -> None:
    order = [1, 0, *range(2, len(LABELS))]

    def permuted(name: str) -> onnx.ModelProto:
        return toy_graph(toy_weights(name, len(LABELS))[:, order], CLIP.samples, labels=LABELS)

    report = broken(tmp_path, replace_graphs(permuted))
    assert {c.output for c in report.comparisons if (c.max_difference or 0) > TOLERANCES["fp32"].max_difference} == {
        *BRANCHES,
        "fused",
    }
    assert not report.passed


def test_a_swapped_fusion_order_fails_though_every_branch_is_right(tmp_path: Path) -> None:
    sound = toy_fusion()
    halves = np.split(sound.weight, 2, axis=1)
    swapped = Fusion(np.concatenate(halves[::-1], axis=1), sound.bias, BRANCHES)
    report = broken(tmp_path, set_field(fusion=swapped))
    assert {reason.split(":")[0] for reason in report.failures} == {"onnxruntime fp32, fused"}


def test_branches_named_in_another_order_in_manifest_and_fusion_alike_fail(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        fusion = arguments["fusion"]
        arguments["fusion"] = Fusion(fusion.weight, fusion.bias, BRANCHES[::-1])
        arguments["branches"] = arguments["branches"][::-1]

    assert {reason.split(":")[0] for reason in broken(tmp_path, edit).failures} == {"onnxruntime fp32, fused"}


def test_two_graphs_under_each_other_s_name_fail(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        first, second = arguments["files"].values()
        arguments["files"] = {"wav2vec2.onnx": second, "spectrogram.onnx": first}

    assert not broken(tmp_path, edit).passed


def test_a_graph_that_no_runtime_takes_fails(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        arguments["files"]["wav2vec2.onnx"].write_bytes(b"not a model")

    report = broken(tmp_path, edit)
    assert any(reason.startswith("onnxruntime fp32: ONNX Runtime refuses") for reason in report.failures)
    assert any("nothing was compared" in reason for reason in report.failures)


def test_nothing_compared_fails_when_no_runtime_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "available_backends", lambda: {"onnxruntime": "it is not installed"})
    report = broken(tmp_path)
    assert report.failures == ("nothing was compared (onnxruntime: it is not installed)",)
    assert report.absent == {"onnxruntime": "it is not installed"}


def test_a_runtime_that_was_asked_for_and_is_not_there_fails(toy_bundle: Bundle) -> None:
    report = verify(toy_bundle, ["onnxruntime", "abacus"])
    assert report.comparisons
    assert len(report.failures) == 1 and "no backend 'abacus'" in report.failures[0]
    assert any("nothing was compared" in failure for failure in verify(toy_bundle, []).failures)


def test_an_empty_reference_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=CLIP)
    empty = {"pcm": np.zeros((0, CLIP.samples), np.int16), "fused": np.zeros((0, 8), np.float32)}
    branches = {f"branch:{name}": np.zeros((0, 8), np.float32) for name in BRANCHES}
    with (bundle.root / "reference.npz").open("wb") as file:
        np.savez(file, **empty, **branches)
    with pytest.raises(BundleError, match="nothing to compare"):
        verify(bundle)


def comparison(**changes: Any) -> Comparison:
    sound = Comparison("onnxruntime", "fp32", "fused", 12, 1e-6, 1e-7, 0, 0)
    return dataclasses.replace(sound, **changes)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, 0),
        ({"max_difference": TOLERANCES["fp32"].max_difference}, 0),
        ({"max_difference": 1.1 * TOLERANCES["fp32"].max_difference}, 1),
        ({"rows": 0, "max_difference": None, "mean_difference": None}, 1),
        ({"non_finite": 1}, 1),
        ({"flips": 1}, 1),
        ({"flips": 1, "precision": "bf16"}, 0),
        ({"precision": "fp8"}, 1),
    ],
)
def test_each_tolerance(changes: dict[str, Any], reasons: int) -> None:
    assert len(list(comparison(**changes).failures())) == reasons


def test_compare_measures_by_hand() -> None:
    expected = np.array([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]], np.float32)
    found = np.array([[0.4, 0.6], [0.3, 0.7], [np.nan, 0.5]], np.float32)
    measured = compare("engine", "fp32", "fused", expected, found)
    assert (measured.rows, measured.flips, measured.non_finite) == (3, 2, 1)
    assert measured.max_difference == pytest.approx(0.2)
    assert measured.mean_difference == pytest.approx(0.4 / 5)


def test_compare_refuses_another_shape() -> None:
    with pytest.raises(EngineError, match="another shape"):
        compare("engine", "fp32", "fused", np.zeros((2, 8)), np.zeros((1, 8)))


def test_an_embedding_is_compared_with_the_reference(tmp_path: Path) -> None:
    report = verify(make_toy_bundle(tmp_path / "sound", clip=CLIP, embedding=True), ["onnxruntime"])
    assert report.passed
    found = [c for c in report.comparisons if c.output == "embedding"]
    assert [c.rows for c in found] == [16] * len(found) and found
    assert all(c.max_difference is not None and c.max_difference < 1e-5 for c in found)

    def shift(arguments: dict[str, Any]) -> None:
        reference = arguments["reference"]
        arguments["reference"] = dataclasses.replace(reference, embedding=reference.embedding * np.float32(1.01))

    report = verify(make_toy_bundle(tmp_path / "wrong", clip=CLIP, embedding=True, edit=shift), ["onnxruntime"])
    assert any("fp32, embedding: max relative distance " in failure for failure in report.failures)
    assert len(report.failures) == 1
