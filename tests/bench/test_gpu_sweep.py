from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import gpu_sweep
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.engines import open_engine
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.onnxruntime_cuda import BoundEngine
from ser_batch.engines.tensorrt.library import NATIVE, RTX
from ser_batch.errors import ExportError
from support.fake_gpu import FakeDevice

ROOT = Path(__file__).parents[2]


def test_bound_onnxruntime_gives_what_the_serving_engine_gives(toy_bundle: Bundle):
    bound, serving = BoundEngine(toy_bundle, "cpu"), open_engine(toy_bundle, "onnxruntime")
    clips = synthetic_clips(toy_bundle.manifest.clip)[:3]
    expected, found = serving.run(clips), bound.run(clips)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert set(bound.timings()) == {"host_to_device", "compute", "device_to_host"}
    bound.close()
    serving.close()


@pytest.mark.skipif(not RTX.installed() or NATIVE.installed() is not None, reason="needs TensorRT for RTX alone")
def test_rtx_does_not_build_for_an_h200(toy_bundle, monkeypatch):
    pytest.importorskip("torch")
    device = FakeDevice(compute_capability="9.0")
    monkeypatch.setattr(gpu_sweep, "open_cuda_device", lambda: device)
    with pytest.raises(ExportError, match=r"does not build for compute capability 9\.0"):
        gpu_sweep.open_tensorrt(toy_bundle)
    assert device.closed


@pytest.mark.slow
def test_the_gpu_sweep_rehearsed_on_a_cpu(tmp_path):
    """All of it but the GPU: a small model exported, every engine, files through the pipeline, the tables last."""
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "gpu_sweep.sh"), str(tmp_path), "--device", "cpu", "--small", "--seconds", "200"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu_sweep.json").read_text())
    assert {m["backend"] for m in result["measurements"]} >= {"torch eager", "onnxruntime bound"}
    if no_gpu():
        assert "no GPU can be used" in result["absent"]["TensorRT fp32"]
    assert all(m["peak_share"] is not None for m in result["measurements"])
    assert {m["backend"] for m in result["throughput"]} == {"torch eager", "onnxruntime bound"}
    assert done.stdout.startswith("measured on ") and "a rehearsal" in done.stdout
    assert done.stdout.rstrip().endswith("|")
