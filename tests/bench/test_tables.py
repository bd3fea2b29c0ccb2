from __future__ import annotations

from dataclasses import replace

from bench import results
from bench.tables import markdown, tables
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


def test_graphs_of_peers_are_shown_where_a_result_has_them():
    graph = {"maker": "optimum-onnx 0.1.0", "begins": "16 kHz, z-normed", "nodes": 438, "opset": 18}
    before = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2")
    assert [table.title for table in tables(before)] == ["Peers, branch wav2vec2 of toy"]
    after = results.document("peers", {}, candidates=[], model="toy", target="wav2vec2", graphs=[graph])
    assert tables(after)[1].rows == [("optimum-onnx 0.1.0", "16 kHz, z-normed", "438", "18")]
