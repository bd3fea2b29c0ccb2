from __future__ import annotations

from dataclasses import replace

from bench import results
from bench.peak import Peak
from bench.tables import markdown, tables
from bench.timing import Candidate, Series
from support.toy_measurements import latency_result, measurement


def test_markdown_has_a_cell_for_every_column():
    for table in tables(latency_result(measurement(1, 0.01))):
        widths = {line.count(" | ") for line in markdown(table).splitlines()}
        assert widths == {len(table.columns) - 1}


def test_device_memory_is_shown_where_an_engine_reports_it():
    on_gpu = replace(measurement(8, 0.04), device="cuda", device_memory=3 * 2**20)
    table = tables(latency_result(measurement(1, 0.01), on_gpu))[0]
    column = table.columns.index("device memory")
    assert [row[column] for row in table.rows] == ["–", "3 MiB"]
    assert "device memory" not in tables(latency_result(measurement(1, 0.01)))[0].columns


def test_the_share_of_the_machines_product_is_of_the_same_precision_and_device():
    peaks = [
        Peak("numpy", "fp32", "cpu", 8, 1e9),
        Peak("torch", "fp32", "cpu", 8, 2e9),
        Peak("torch", "bf16", "cpu", 8, 8e9),
    ]
    given = [
        ("torch eager fp32", "cpu"),
        ("openvino bf16", "cpu"),
        ("openvino int8", "cpu"),
        ("onnxruntime fp32", "cuda"),
    ]
    found = [Candidate(label, device, "x", 8, Series.of([1.0]), 4.0, 1.0, 0.0, 2, []) for label, device in given]
    content = {"candidates": found, "peaks": peaks, "model": "toy", "target": "x"}
    table = tables(results.document("peers", {}, flops_per_clip=250_000_000, **content))[0]
    column = table.columns.index("of peak")
    assert [row[column] for row in table.rows] == ["50%", "12%", "–", "–"]
    assert "of peak" not in tables(results.document("peers", {}, **content))[0].columns


def test_graphs_of_peers_are_shown_where_a_result_has_them():
    graph = {"maker": "optimum-onnx 0.1.0", "begins": "16 kHz, z-normed", "nodes": 438, "opset": 18}
    before = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2")
    assert [table.title for table in tables(before)] == ["Peers, branch wav2vec2 of toy"]
    after = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2", graphs=[graph])
    assert tables(after)[1].rows == [("optimum-onnx 0.1.0", "16 kHz, z-normed", "438", "18")]
