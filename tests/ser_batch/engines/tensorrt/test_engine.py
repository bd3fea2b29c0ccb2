"""The TensorRT engine over a fake GPU: the order of operations, padding, splitting, refusals and the end."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import export.tensorrt
from export.tensorrt import build_engines
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.writing import add_artefacts
from ser_batch.clips import ClipRule
from ser_batch.engines.cuda import no_gpu
from ser_batch.engines.tensorrt import engine as backend
from ser_batch.engines.tensorrt.engine import MicroBatch, TensorRtEngine, micro_batches, open_bundle, open_on
from ser_batch.engines.tensorrt.library import LIBRARIES
from ser_batch.engines.tensorrt.sidecar import SIDECAR_FILE
from ser_batch.errors import BundleError, EngineError
from support.fake_gpu import FakeDevice
from support.fake_tensorrt import FakeTensorRt
from support.toy import make_toy_bundle, toy_embedding, toy_probabilities, toy_weights

SMALL = ClipRule(sample_rate=8_000, samples=800)
SIZES = (1, 4, 8)
FOLDER = "engines/trt-fp32-sm89/"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTensorRt]:
    """Puts a fake GPU with native TensorRT in place; returns the latter."""

    def put(**device: Any) -> FakeTensorRt:
        trt = FakeTensorRt(FakeDevice(**device))
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(export.tensorrt, "no_gpu", lambda: None)
        monkeypatch.setattr(export.tensorrt, "open_cuda_device", lambda: FakeDevice())
        monkeypatch.setattr(backend, "open_cuda_device", lambda: trt.device)
        return trt

    return put


def built(bundle: Bundle, **options: Any) -> Bundle:
    return build_engines(bundle, **{"precision": "fp32", "batches": SIZES, "runtime": "trt"} | options).bundle


def opened(bundle: Bundle, trt: FakeTensorRt) -> TensorRtEngine:
    return open_on(trt.device, built(bundle), "fp32")


def clips(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    loudness = rng.uniform(0.01, 1, (count, 1)).astype(np.float32)
    return loudness * rng.uniform(-1, 1, (count, SMALL.samples)).astype(np.float32)


def expected(waveform: np.ndarray, branch: str) -> np.ndarray:
    return toy_probabilities(waveform, toy_weights(branch, 8))


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_it_gives_what_numpy_gives_whenever_the_gpu_gets_to_it(bundle: Bundle, gpu: Any, seed: int | None) -> None:
    engine = opened(bundle, gpu(seed=seed))
    for count in (1, 2, 4, 5, 8, 9, 31, 40, 3):
        waveform = clips(count)
        rows = engine.run(waveform)
        assert list(rows) == ["wav2vec2", "spectrogram"]
        for name, found in rows.items():
            assert found.shape == (count, 8) and found.dtype == np.float32
            np.testing.assert_allclose(found, expected(waveform, name), atol=1e-5, err_msg=f"{name}, {count} clips")
    assert (engine.name, engine.precision, engine.device) == ("trt", "fp32", "cuda")


def test_the_fake_gpu_tells_a_forgotten_wait(bundle: Bundle, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(bundle, trt := gpu())
    monkeypatch.setattr(trt.device, "wait", lambda stream, event: None)
    assert not np.allclose(engine.run(clips(4))["wav2vec2"], expected(clips(4), "wav2vec2"), atol=1e-3)


def test_one_upload_feeds_both_branches_on_streams_of_their_own(bundle: Bundle, gpu: Any) -> None:
    engine = opened(bundle, trt := gpu())
    trt.device.calls.clear()
    engine.run(clips(3))
    calls = trt.device.calls
    assert [call[0] for call in calls] == [
        *("upload", "record"),
        *("wait", "launch", "record"),
        *("wait", "launch", "record"),
        *("synchronize", "synchronize"),
    ]
    (uploaded, upload_stream), waits = calls[1][1:], [call[1:] for call in calls if call[0] == "wait"]
    assert [event for _, event in waits] == [uploaded, uploaded]
    assert len({upload_stream, *(stream for stream, _ in waits)}) == 3
    assert len({call[1] for call in calls if call[0] == "launch"}) == 2


def test_the_next_micro_batch_is_uploaded_while_one_is_computed(bundle: Bundle, gpu: Any) -> None:
    engine = opened(bundle, trt := gpu())
    trt.device.calls.clear()
    engine.run(clips(24))
    assert trt.device.said("upload", "synchronize") == [
        *("upload", "upload"),
        *("synchronize", "synchronize", "upload"),
        *["synchronize"] * 4,
    ]


def test_a_batch_is_cut_and_its_rest_padded_with_silence(bundle: Bundle, gpu: Any) -> None:
    engine = opened(bundle, trt := gpu())
    engine.run(clips(8))
    trt.computed.clear()
    engine.run(waveform := clips(10))
    assert [len(batch) for batch in trt.computed] == [8, 8, 4, 4]
    for batch in trt.computed[2:]:
        np.testing.assert_array_equal(batch, np.concatenate([waveform[8:], np.zeros((2, SMALL.samples))]))


def test_all_memory_is_taken_and_all_graphs_are_captured_before_the_first_run(bundle: Bundle, gpu: Any) -> None:
    engine = opened(bundle, trt := gpu())
    assert engine.graphs == (12, 12) and trt.device.said("capture") == ["capture"] * 12
    assert set(trt.device.said("allocate", "page_locked", "event", "stream")) > set()
    trt.device.calls.clear()
    engine.run(clips(20))
    assert not trt.device.said("allocate", "page_locked", "event", "stream", "capture")


def test_what_no_graph_can_hold_is_put_on_its_stream_each_time(
    bundle: Bundle, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "support.fake_tensorrt._Context.is_stream_capturable", lambda self, stream: False, raising=False
    )
    engine = opened(bundle, gpu(seed=4))
    assert engine.graphs == (0, 12)
    np.testing.assert_allclose(engine.run(clips(9))["spectrogram"], expected(clips(9), "spectrogram"), atol=1e-5)


def test_a_gpu_without_memory_says_so_and_is_given_back(bundle: Bundle, gpu: Any) -> None:
    trt = gpu(memory=20_000)
    with pytest.raises(EngineError, match=r"no memory left"):
        open_bundle(built(bundle), None, "fp32")
    assert trt.device.closed


def test_a_failure_ends_the_engine(bundle: Bundle, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "support.fake_tensorrt._Context.is_stream_capturable", lambda self, stream: False, raising=False
    )
    engine = opened(bundle, trt := gpu())
    trt.fails_to_execute = True
    with pytest.raises(EngineError, match=r"branch wav2vec2 failed; got Cuda Runtime .an illegal memory access"):
        engine.run(clips(2))
    assert trt.device.closed
    with pytest.raises(EngineError, match=r"has been closed"):
        engine.run(clips(2))


def test_closing_twice_is_closing_once(bundle: Bundle, gpu: Any) -> None:
    engine = opened(bundle, trt := gpu())
    engine.close()
    engine.close()
    assert trt.device.closed


def test_a_bundle_without_engines_says_how_to_build_them(bundle: Bundle, gpu: Any) -> None:
    trt = gpu()
    with pytest.raises(
        BundleError, match=rf"no TensorRT engines in fp32. Build them: ser-export trt {bundle.root} --pre"
    ):
        open_on(trt.device, bundle, "fp32")
    with pytest.raises(BundleError, match=r"no TensorRT engines in bf16"):
        open_on(trt.device, built(bundle), "bf16")


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ({"capability": "9.0"}, "the GPU is another one .here: trt 11.4.0.106 on Fake GPU, compute capability 9.0"),
        ({"version": "10.12.0.36"}, "the runtime is another one .here: trt 10.12.0.36"),
    ],
)
def test_another_machine_s_engines_are_refused(bundle: Bundle, gpu: Any, here: dict[str, str], message: str) -> None:
    trt = gpu()
    made = built(bundle)
    trt.__version__ = here.get("version", trt.__version__)
    device = FakeDevice(compute_capability=here.get("capability", "8.9"))
    with pytest.raises(BundleError, match=message) as error:
        open_on(device, made, "fp32")
    assert "trt 11.4.0.106 in fp32 for compute capability 8.9" in str(error.value)
    assert f"ser-export trt {bundle.root} --precision fp32 --batch 1,4,8 --replace" in str(error.value)


def test_engines_of_a_library_that_is_not_here_are_refused(
    bundle: Bundle, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu()
    made = built(bundle)
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"for compute capability 8.9: TensorRT is not installed"):
        open_on(FakeDevice(), made, "fp32")


def edited(bundle: Bundle, **changes: Any) -> Bundle:
    member = FOLDER + SIDECAR_FILE
    content = json.loads(bundle.path(member).read_text()) | changes
    return add_artefacts(bundle, {member: json.dumps(content).encode()}, replace=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle_sha256": "f" * 64}, "built for another bundle .ffffffffffff"),
        ({"onnx_sha256": {"wav2vec2": "0" * 64, "spectrogram": "0" * 64}}, "wav2vec2 was built from another graph"),
        ({"schema_version": 2}, r"schema version that is not known; got 2; expected 1.*Build the engines again"),
        ({"profiles": [8, 1]}, r"profiles are no batch sizes; got \[8, 1\]"),
        ({"extra": 1}, "unknown keys: extra"),
        ({"runtime": 7}, "sidecar.json: runtime is of another type; got 7; expected a string"),
        ({"target": "sm75"}, "is about other engines"),
    ],
)
def test_a_sidecar_that_does_not_fit_its_folder_is_refused(
    bundle: Bundle, gpu: Any, changes: dict[str, Any], message: str
) -> None:
    trt = gpu()
    with pytest.raises(BundleError, match=message):
        open_on(trt.device, edited(built(bundle), **changes), "fp32")


def test_engines_with_other_profiles_than_they_say_are_refused(bundle: Bundle, gpu: Any) -> None:
    trt = gpu()
    with pytest.raises(EngineError, match=r"other profiles; got \(1, 4, 8\); expected \(1, 2\)"):
        open_on(trt.device, edited(built(bundle), profiles=[1, 2]), "fp32")


def test_the_embedding_is_copied_back_where_it_is_asked_for(tmp_path: Path, gpu: Any) -> None:
    bundle, trt, waveform = make_toy_bundle(tmp_path / "bundle", clip=SMALL, embedding=True), gpu(seed=1), clips(11)
    both = open_on(trt.device, built(bundle), "fp32", embedding=True).run(waveform)
    assert sorted(both) == ["embedding", "spectrogram", "wav2vec2"]
    np.testing.assert_allclose(both["embedding"], toy_embedding(waveform), atol=1e-4)
    np.testing.assert_allclose(both["wav2vec2"], expected(waveform, "wav2vec2"), atol=1e-5)
    plain = open_on(gpu(seed=1).device, load_bundle(bundle.root), "fp32").run(waveform)
    assert list(plain) == ["wav2vec2", "spectrogram"]


def test_an_engine_with_other_tensors_is_refused(tmp_path: Path, gpu: Any) -> None:
    trt = gpu()
    made = built(make_toy_bundle(tmp_path / "bundle", clip=SMALL, output_name="scores"))
    with pytest.raises(EngineError, match=r"wav2vec2 has other tensors"):
        open_on(trt.device, made, "fp32")


def test_an_engine_that_changed_under_an_open_bundle_is_never_loaded(bundle: Bundle, gpu: Any) -> None:
    trt = gpu()
    made = built(bundle)
    made.path(FOLDER + "wav2vec2.engine").write_bytes(b"evil")
    trt.Runtime = lambda log: pytest.fail("it was loaded")
    with pytest.raises(EngineError, match=r"was changed since the bundle was opened"):
        open_on(trt.device, made, "fp32")


def test_an_engine_that_the_manifest_does_not_list_is_refused_with_its_bundle(bundle: Bundle, gpu: Any) -> None:
    gpu()
    root = built(bundle).root
    (root / FOLDER / "other.engine").write_bytes(b"evil")
    with pytest.raises(BundleError, match=r"not listed in the manifest; got .'engines/trt-fp32-sm89/other.engine'"):
        load_bundle(root)


def test_a_damaged_engine_is_refused_by_the_runtime(bundle: Bundle, gpu: Any) -> None:
    trt = gpu()
    made = add_artefacts(built(bundle), {FOLDER + "wav2vec2.engine": b"no engine"}, replace=True)
    with pytest.raises(EngineError, match=r"wav2vec2 cannot be loaded; got Serialization .* Build it again"):
        open_on(trt.device, made, "fp32")


def test_a_runtime_that_finds_no_driver_is_an_error_with_a_remedy(bundle: Bundle, gpu: Any) -> None:
    trt = gpu()
    made = built(bundle)
    trt.refuses_runtime = "CUDA initialization failure with error: 35. Please check your CUDA installation"
    with pytest.raises(EngineError, match=r"cannot be loaded; got CUDA initialization .* Install an NVIDIA driver"):
        open_on(trt.device, made, "fp32")


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
@pytest.mark.skipif(not LIBRARIES["trt-rtx"].installed(), reason="TensorRT for RTX is not installed")
def test_a_real_engine_without_a_driver_is_an_error_with_a_remedy(bundle: Bundle) -> None:
    # The real library returns None here, after a line in its log.
    made = built(bundle, runtime="trt-rtx", batches=(1,))
    with pytest.raises(EngineError, match=r"cannot be loaded; got .*insufficient.* Install an NVIDIA driver"):
        open_on(FakeDevice(), made, "fp32")


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
def test_where_there_is_no_gpu_that_is_what_is_said(bundle: Bundle) -> None:
    assert "no NVIDIA driver" in (backend.unavailable() or "") or "no GPU" in (backend.unavailable() or "")
    with pytest.raises(EngineError, match=r"no GPU can be used"):
        open_bundle(bundle, None, "fp32")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, gpu: Any) -> None:
    gpu()
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "cuda.bindings" else found(name))
    assert "cuda-bindings is not installed" in (backend.unavailable() or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'ser-batch[trt]'" in (backend.unavailable() or "")
    assert "pip install 'ser-batch[trt-rtx]'" in (backend.unavailable() or "")


def test_the_version_names_each_library(gpu: Any) -> None:
    gpu()
    assert "trt 11.4.0.106" in backend.version()


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, (1, 8), [MicroBatch(0, 1, 0)]),
        (2, (1, 8), [MicroBatch(0, 2, 1)]),
        (8, (1, 8), [MicroBatch(0, 8, 1)]),
        (9, (1, 8), [MicroBatch(0, 8, 1), MicroBatch(8, 9, 0)]),
        (20, (8,), [MicroBatch(0, 8, 0), MicroBatch(8, 16, 0), MicroBatch(16, 20, 0)]),
        (70, (1, 8, 64), [MicroBatch(0, 64, 2), MicroBatch(64, 70, 1)]),
    ],
)
def test_micro_batches(count: int, sizes: tuple[int, ...], expected: list[MicroBatch]) -> None:
    assert list(micro_batches(count, sizes)) == expected


def test_every_clip_is_in_one_micro_batch_that_holds_it() -> None:
    sizes = (2, 3, 7)
    for count in range(1, 40):
        found = list(micro_batches(count, sizes))
        assert [index for part in found for index in range(part.start, part.stop)] == list(range(count))
        assert all(part.stop - part.start <= sizes[part.profile] for part in found)
