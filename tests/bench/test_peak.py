from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.peak import Peak, best, best_rate, count_bundle, count_flops, measure_peaks, torch_peaks
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError
from support.toy import BLOCKS, LABELS


def test_the_best_peak_is_of_that_precision_and_device():
    peaks = [Peak("a", "fp32", "cpu", 8, 1.0), Peak("b", "fp32", "cpu", 8, 2.0), Peak("b", "fp32", "cuda", 8, 9.0)]
    assert best(peaks, "fp32", "cpu") == peaks[1] and best(peaks, "bf16", "cpu") is None
    calls: list[int] = []
    assert best_rate(lambda: calls.append(1), 10) > 0 and len(calls) == 6


def test_torch_is_measured_in_every_precision():
    pytest.importorskip("torch")
    peaks = torch_peaks("cpu", size=32)
    assert [peak.precision for peak in peaks] == ["fp32", "bf16", "fp16"] and all(peak.flops > 0 for peak in peaks)


def test_a_gpu_that_torch_does_not_see_is_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="sees no CUDA device"):
        torch_peaks("cuda")


def test_peaks_come_from_a_process_of_their_own(monkeypatch):
    peaks = measure_peaks("cpu", small=True)
    assert peaks[0].library == "numpy" and {peak.size for peak in peaks} == {128}
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EngineError, match="cannot be measured on cpu"):
        measure_peaks("cpu")


def save(path: Path, nodes: list, inputs: dict, output: list, constants: dict) -> Path:
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, dtype=np.float32)


def test_a_strided_grouped_convolution(tmp_path):
    # (1, 4, 20) by 6 filters over 2 groups, kernel 5, stride 3: 6 outputs long; 6 * 6 values of 2 * 5 products.
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[3], group=2, kernel_shape=[5])
    path = save(tmp_path / "conv.onnx", [node], {"x": ["batch", 4, 20]}, ["batch", 6, 6], {"w": ones(6, 2, 5)})
    assert count_flops(path).by_operator == {"Conv": 2 * (6 * 6) * (2 * 5)}


def test_attention_scores_count_each_head(tmp_path):
    # (1, 3 heads, 7 frames, 4) by its transpose: 3 * 7 * 7 values of 4 products, as in self-attention.
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    path = save(tmp_path / "scores.onnx", nodes, {"x": ["batch", 3, 7, 4]}, ["batch", 3, 7, 7], {})
    assert count_flops(path).by_operator == {"MatMul": 2 * (3 * 7 * 7) * 4}


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(tmp_path, transposed):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    weights = {"w": ones(5, 8) if transposed else ones(8, 5), "b": ones(5)}
    path = save(tmp_path / "gemm.onnx", [node], {"x": ["batch", 8]}, ["batch", 5], weights)
    assert count_flops(path).total == 2 * 8 * 5


def test_the_toy_bundle_is_one_product_a_branch(toy_bundle: Bundle):
    counts = count_bundle(toy_bundle)
    assert {name: count.total for name, count in counts.items()} == dict.fromkeys(counts, 2 * BLOCKS * len(LABELS))
    assert list(counts) == ["wav2vec2", "spectrogram"]


def test_work_that_is_not_understood_is_refused(tmp_path):
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bi,ij->bj")
    path = save(tmp_path / "einsum.onnx", [node], {"x": ["batch", 8]}, ["batch", 5], {"w": ones(8, 5)})
    with pytest.raises(EngineError, match="not counted; got Einsum"):
        count_flops(path)
