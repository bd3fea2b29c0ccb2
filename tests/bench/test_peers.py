from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.interleave import check_equal
from bench.peers import tensorrt_here
from bench.peers.models import random_branches
from bench.peers.torch_engine import TorchEngine
from bench.peers.torch_peak import torch_peaks
from bench.peers.transformers_engine import TransformersEngine, classification_model
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.engines import open_engine
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.onnxruntime_cuda import BoundEngine
from ser_batch.engines.tensorrt.library import NATIVE, RTX
from ser_batch.errors import EngineError, ExportError, InputError
from support.fake_gpu import FakeDevice

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def branches() -> dict[str, nn.Module]:
    return random_branches("small", seed=1)[1]


def clips(count: int = 3) -> np.ndarray:
    from ser_batch.clips import ClipRule

    return synthetic_clips(ClipRule())[:count]


def test_weights_follow_from_the_seed(branches):
    again, other = random_branches("small", seed=1)[1], random_branches("small", seed=2)[1]
    for name, branch in branches.items():
        same = [torch.equal(a, b) for a, b in zip(branch.parameters(), again[name].parameters(), strict=True)]
        assert all(same)
        assert not all(torch.equal(a, b) for a, b in zip(branch.parameters(), other[name].parameters(), strict=True))
    with pytest.raises(InputError, match="no model of that size"):
        random_branches("huge")


def test_torch_gives_what_the_branches_give(branches):
    engine = TorchEngine(branches)
    found = engine.run(clips())
    with torch.inference_mode():
        for name, branch in branches.items():
            expected = branch(torch.from_numpy(clips())).softmax(1).numpy()
            np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert set(engine.timings()) == {"compute"}  # nothing is copied on a CPU
    engine.close()


def test_short_formats_are_near_and_leave_front_ends_and_the_branch_alone(branches):
    exact, short = TorchEngine(branches), TorchEngine(branches, precision="bf16")
    kinds = {parameter.dtype for branch in short._branches.values() for parameter in branch.parameters()}
    buffers = {b.dtype for branch in short._branches.values() for b in branch.buffers() if b.is_floating_point()}
    assert torch.bfloat16 in kinds and buffers == {torch.float32}
    assert all(p.dtype == torch.float32 for branch in branches.values() for p in branch.parameters())
    expected, found = exact.run(clips()), short.run(clips())
    for name in branches:
        difference = np.abs(found[name] - expected[name]).max()
        assert 0 < difference < 0.05
        np.testing.assert_allclose(found[name].sum(axis=1), 1, atol=1e-5)


def test_a_device_or_precision_that_is_not_there_is_refused(branches):
    with pytest.raises(InputError, match="no such precision"):
        TorchEngine(branches, precision="fp4")
    with pytest.raises(EngineError, match="no such device"):
        TorchEngine(branches, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="sees no CUDA device"):
            TorchEngine(branches, device="cuda")
        with pytest.raises(EngineError, match="sees no CUDA device"):
            torch_peaks("cuda")


def test_transformers_pipeline_computes_the_same_function(branches):
    context = {"wav2vec2": branches["wav2vec2"]}
    engines = {
        "torch": TorchEngine(context),
        "pipeline": TransformersEngine("wav2vec2", context["wav2vec2"], sample_rate=48_000),
    }
    differences = check_equal(engines, "wav2vec2", clips())
    assert differences["pipeline"] < 1e-5
    with pytest.raises(EngineError, match=r"wav2vec 2\.0 branch"):
        classification_model(branches["spectrogram"])


def test_bound_onnxruntime_gives_what_the_serving_engine_gives(toy_bundle: Bundle):
    bound, serving = BoundEngine(toy_bundle, "cpu"), open_engine(toy_bundle, "onnxruntime")
    expected, found = serving.run(clips()), bound.run(clips())
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert set(bound.timings()) == {"host_to_device", "compute", "device_to_host"}
    bound.close()
    serving.close()


def test_peaks_are_of_every_precision():
    peaks = torch_peaks("cpu", size=32)
    assert [peak.precision for peak in peaks] == ["fp32", "bf16", "fp16"] and all(peak.flops > 0 for peak in peaks)


@pytest.mark.skipif(not RTX.installed() or NATIVE.installed() is not None, reason="needs TensorRT for RTX alone")
def test_the_gpu_sweep_says_that_rtx_does_not_build_for_an_h200(toy_bundle, monkeypatch):
    device = FakeDevice(compute_capability="9.0")
    monkeypatch.setattr(tensorrt_here, "open_cuda_device", lambda: device)
    with pytest.raises(ExportError, match=r"does not build for compute capability 9\.0"):
        tensorrt_here.build_here(toy_bundle)
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
    assert done.stdout.rstrip().endswith("|")
