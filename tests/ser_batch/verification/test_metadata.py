from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from ser_batch.errors import BundleError
from ser_batch.verification.metadata import read_metadata
from support.toy import LABELS, toy_graph, toy_weights


def graph(path: Path, properties: dict[str, str]) -> Path:
    model = toy_graph(toy_weights("wav2vec2", len(LABELS)))
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"labels": '["a", "b"]', "branch": "wav2vec2"},
        {"empty": ""},
        {"unicode": "glücklich 😀", "long": "x" * 70_000},
    ],
)
def test_reads_what_onnx_reads(tmp_path: Path, properties: dict[str, str]) -> None:
    path = graph(tmp_path / "model.onnx", properties)
    assert {p.key: p.value for p in onnx.load(path).metadata_props} == properties
    assert read_metadata(path) == properties


def test_every_truncation_is_an_error_or_loses_only_whole_fields(tmp_path: Path) -> None:
    whole = graph(tmp_path / "model.onnx", {"labels": "[]"}).read_bytes()
    cut = tmp_path / "cut.onnx"
    errors = 0
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            assert set(read_metadata(cut)) <= {"labels"}
        except BundleError:
            errors += 1
    assert errors > len(whole) * 0.9


@pytest.mark.parametrize("content", [b"not a model at all", b"\xff" * 40, b"\x0b\x0c"])
def test_refuses_what_is_no_protobuf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        read_metadata(tmp_path / "model.onnx")


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx"):
        read_metadata(tmp_path / "absent.onnx")
