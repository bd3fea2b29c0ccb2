"""The bound engine, on the CPU where its copies are memory copies; and every way a GPU can be missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule
from ser_batch.engines import onnxruntime_cuda
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.onnxruntime_cuda import BoundEngine, open_bundle, unavailable
from ser_batch.errors import BundleError, EngineError
from ser_batch.machine import package_version
from support.toy import make_toy_bundle, toy_embedding

SMALL = ClipRule(sample_rate=8_000, samples=800)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


def test_bound_memory_gives_what_numpy_gives(toy_bundle: Bundle) -> None:
    reference, engine = toy_bundle.reference(), BoundEngine(toy_bundle, "cpu")
    rows = engine.run(reference.waveform)
    assert list(rows) == ["wav2vec2", "spectrogram"]
    for name, expected in reference.branches.items():
        assert rows[name].dtype == np.float32
        np.testing.assert_allclose(rows[name], expected, atol=1e-5)
    assert set(engine.timings()) == {"host_to_device", "compute", "device_to_host"}
    assert all(seconds > 0 for seconds in engine.timings().values())
    assert (engine.name, engine.device, engine.precision) == ("onnxruntime bound", "cpu", "fp32")


def test_the_embedding_is_bound_where_it_is_asked_for(embedding_bundle: Bundle) -> None:
    clips = embedding_bundle.reference().waveform
    rows = BoundEngine(embedding_bundle, "cpu", embedding=True).run(clips)
    assert list(rows) == ["wav2vec2", "embedding", "spectrogram"]
    np.testing.assert_allclose(rows["embedding"], toy_embedding(clips), atol=1e-3)
    assert list(BoundEngine(embedding_bundle, "cpu").run(clips)) == ["wav2vec2", "spectrogram"]


def test_a_result_is_not_changed_by_the_next_run(toy_bundle: Bundle) -> None:
    reference, engine = toy_bundle.reference(), BoundEngine(toy_bundle, "cpu")
    first = engine.run(reference.waveform)["wav2vec2"]
    kept = first.copy()
    engine.run(np.ascontiguousarray(reference.waveform[::-1]))
    np.testing.assert_array_equal(first, kept)


def test_any_batch_size_comes_and_goes(bundle: Bundle) -> None:
    engine, waveform = BoundEngine(bundle, "cpu"), np.random.default_rng(0).uniform(-1, 1, (9, 800)).astype(np.float32)
    whole = engine.run(waveform)["spectrogram"]
    for size in (1, 2, 3, 4, 5, 6, 7, 1, 9):
        np.testing.assert_allclose(engine.run(waveform[:size])["spectrogram"], whole[:size], atol=1e-6)
    assert len(engine._bound) == 4


def test_a_failing_run_says_how_many_clips_it_was(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"failed on 2 clips; got .* smaller --batch-size"):
        BoundEngine(bundle, "cpu").run(np.zeros((2, 7), np.float32))


def test_a_closed_engine_does_not_run(bundle: Bundle) -> None:
    engine = BoundEngine(bundle, "cpu")
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.run(np.zeros((1, 800), np.float32))


def test_a_precision_the_bundle_has_not_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no fp16 graph"):
        BoundEngine(bundle, "cpu", precision="fp16")


def test_an_unknown_device_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="no such device here; got tpu; expected cpu or cuda"):
        BoundEngine(bundle, "tpu")


@pytest.mark.skipif(package_version("onnxruntime-gpu") is not None, reason="this ONNX Runtime has CUDA")
def test_a_device_this_build_lacks_is_refused(bundle: Bundle) -> None:
    assert "onnxruntime-gpu is not installed" in (unavailable() or "")
    with pytest.raises(EngineError, match=r"cannot run on cuda.*ser-batch\[gpu\]"):
        open_bundle(bundle, None, "fp32")


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
def test_the_right_build_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "package_version", {"onnxruntime-gpu": "1.31.1"}.get)
    assert "NVIDIA driver" in (unavailable() or "")
    assert onnxruntime_cuda.version() == "1.31.1"


class FakeRuntime(SimpleNamespace):
    """An onnxruntime-gpu whose sessions end up on `provider`."""

    def __init__(self, provider: str) -> None:
        self.asked: list[Any] = []
        super().__init__(
            get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            SessionOptions=SimpleNamespace,
            preload_dlls=lambda: self.asked.append("preload"),
        )
        self.provider = provider

    def InferenceSession(self, path: Path, options: Any, providers: list[Any]) -> Any:  # noqa: N802
        self.asked += providers
        tensors = {"waveform": 800, "probabilities": 8}
        waveform, rows = (SimpleNamespace(name=n, shape=["batch", k], type="tensor(float)") for n, k in tensors.items())
        return SimpleNamespace(
            get_providers=lambda: [self.provider],
            get_inputs=lambda: [waveform],
            get_outputs=lambda: [rows],
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={}),
        )


def test_a_silent_fallback_is_loud(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # What onnxruntime-gpu does where CUDA's libraries are missing: it lists CUDA, then runs on the CPU.
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime := FakeRuntime("CPUExecutionProvider"))
    with pytest.raises(EngineError, match=r"fell back from cuda; got .*CPUExecutionProvider"):
        BoundEngine(bundle)
    assert runtime.asked[0] == "preload"


@pytest.mark.parametrize("tf32", [False, True])
def test_fp32_is_fp32_unless_tf32_is_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tf32: bool) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime := FakeRuntime("CUDAExecutionProvider"))
    engine = BoundEngine(bundle, tf32=tf32)
    assert (engine.name, engine.device, engine.precision) == ("onnxruntime-cuda", "cuda", "tf32" if tf32 else "fp32")
    assert ("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}) in runtime.asked
