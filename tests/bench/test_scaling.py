from __future__ import annotations

from typing import Any

import pytest

from bench.scaling import rates, scaling_table

CPU = {"model": "EPYC", "family": 25, "model_number": 17, "cores_usable": 4, "isa": ["avx2"]}
ENVIRONMENT = {"cpu": CPU, "gpus": [], "load_average_at_start": [0.25, 9, 9]}


def result(kind: str, **content: Any) -> dict[str, Any]:
    return {"kind": kind, "environment": ENVIRONMENT, **content}


def measured(batch: int, rate: float, **changes: Any) -> dict[str, Any]:
    row = {"bundle": "b", "backend": "openvino", "precision": "fp32", "device": "cpu", "target": "fused"}
    return row | {"batch": batch, "clips_per_second": rate} | changes


def test_core_hours_follow_from_the_fastest_batch_and_the_cores() -> None:
    slow, fast = measured(1, 40.0), measured(8, 400.0)
    gpu, part = measured(8, 9e9, device="cuda"), measured(8, 9e9, target="wav2vec2")
    (rate,) = rates([("latency-x.json", result("latency", measurements=[slow, fast, gpu, part]))])
    assert rate.per_core == 100.0
    assert rate.core_hours == pytest.approx(1e8 / 100 / 3600)
    unused = ("folder/smoke.json", result("smoke"))
    table = scaling_table([("folder/latency-x.json", result("latency", measurements=[fast])), unused])
    assert "| engine | b | openvino fp32 | 100.0 | 278 | 12 | 0.2 | `latency-x.json` |" in table
    assert table.endswith("\n\nMeasured on EPYC (family 25, model 17), 4 cores; avx2: `latency-x.json`.")


def test_files_and_decoding_are_told_apart() -> None:
    row = measured(8, 0.0) | {"files_per_second": 80.0, "decode_files_per_second": 800.0}
    found = {rate.what: rate.per_core for rate in rates([("t.json", result("throughput", measurements=[row]))])}
    assert found == {"files to rows": 20.0, "decoding alone": 200.0}


def test_of_peers_the_backends_count_and_of_end_to_end_nothing() -> None:
    row = {"label": "openvino bf16", "device": "cpu", "target": "wav2vec2", "clips_per_second": 40.0}
    candidates = [row, row | {"label": "torch eager fp32"}]
    (rate,) = rates([("bench/results/peers-base-x.json", result("peers", candidates=candidates))])
    assert (rate.model, rate.engine, rate.per_core) == ("base, wav2vec2 branch alone", "openvino bf16", 10.0)
    files = {"label": "openvino bf16, the pipeline", "device": "cpu", "files_per_second": 18.0}
    assert rates([("end-to-end-base-x.json", result("end-to-end", candidates=[files]))]) == []
