from __future__ import annotations

from bench import environment, results
from bench.answer import answer
from bench.peak import Peak
from support.toy_measurements import latency_result, measurement, peers_result


def test_the_answer_is_one_table_with_the_fastest_engine_first():
    text = answer(
        [("folder/peers.json", peers_result(("torch eager fp32", 4), ("onnxruntime fp32", 8), ("optimum x", 6)))]
    )
    head, _, *rows, empty, origin = text.splitlines()
    assert head == "| engine | base size, batch 8: clips/s | × torch eager fp32 | base size: max Δp |"
    assert rows == [
        "| **onnxruntime fp32** | 8.0 | 2.00 | 1e-04 |",
        "| optimum x | 6.0 | 1.50 | 1e-04 |",
        "| torch eager fp32 | 4.0 | 1.00 | 1e-04 |",
    ]
    assert not empty and origin.startswith("Measured on ") and "`peers.json`, 20" in origin and "commit " in origin
    assert answer([]).startswith("No result yet: `bench peers")


def test_the_answer_begins_with_the_share_of_the_machines_own_product():
    peaks = [Peak("numpy", "fp32", "cpu", 8, 1e9), Peak("torch", "fp16", "cpu", 8, 1e9)]
    alone = peers_result(("torch eager fp32", 4), ("onnxruntime fp32", 8), peaks=peaks, flops_per_clip=100_000_000)
    whole = latency_result(measurement(1, 0.01), measurement(8, 0.04))
    other = latency_result(measurement(4, 0.001, bundle="other-000000000000"))
    run = {"bundle": "toy-000000000000", "backend": "onnxruntime", "precision": "fp32", "files": 9}
    files = results.document("throughput", environment.describe(), measurements=[run | {"files_per_second": 7.0}])
    text = answer([("a.json", other), ("latency.json", whole), ("peers.json", alone), ("throughput.json", files)])
    head, _, first, second, _, origin = text.splitlines()
    assert head.split(" | ")[:3] == [
        "| engine",
        "base size, batch 8: of the machine's product",
        "toy-000000000000, batch 8: of the machine's product",
    ]
    assert first.startswith("| **onnxruntime fp32** | 80% of fp32 | 50% of fp32 | 8.0 |") and "| 7 |" in first
    assert second.startswith("| torch eager fp32 | 40% of fp32 | – | 4.0 |")
    assert origin.count("product in GFLOP/s: fp32 1") == 2 and "fp16" not in origin
