from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from bench.peak import Peak, count_flops
from bench.peers import compare
from bench.peers.models import Model
from bench.results import document
from bench.tables import tables


def test_operations_are_counted_of_the_branch_that_is_compared(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda branch, **_: branch)  # that is tried in test_torch_engine.py
    monkeypatch.setattr(compare, "context_model", lambda *_: small_model)
    monkeypatch.setattr(compare, "measure_peaks", lambda device: [Peak("numpy", "fp32", device, 8, 1e12)])
    found = compare.measure_peers(("onnxruntime:fp32",), [], (1,), size="small", rounds=1, threads=1)
    assert found["flops_per_clip"] == count_flops(small_model.bundle.path("wav2vec2.onnx")).total > 0
    table = tables(document("peers", {}, **found))[0]
    shares = {row[0]: row[table.columns.index("of peak")] for row in table.rows}
    assert shares["onnxruntime fp32"].endswith("%") and shares["torch eager bf16"] == "–"
