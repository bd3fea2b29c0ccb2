from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.backends import (
    Accuracy,
    agreement,
    branch_view,
    check_backends,
    check_batch,
    check_bundle,
    speech_accuracy,
    targets_of,
)
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines import open_engine
from ser_batch.errors import BundleError, EngineError, InputError
from support.certificates import entry_of, speech_of, write_certificate


def test_a_backend_that_cannot_run_is_refused_or_named_with_its_reason(monkeypatch):
    monkeypatch.setattr("bench.backends.available_backends", lambda: {"here": None, "gpu": "there is no GPU"})
    monkeypatch.setattr("bench.backends.precisions", lambda _: {"fp32": None, "bf16": None, "fp8": "too old"})
    assert check_backends(()) == (("here:fp32", "here:bf16"), {"gpu": "there is no GPU", "here:fp8": "too old"})
    assert check_backends(("here:bf16",))[0] == ("here:bf16",)
    with pytest.raises(EngineError, match="no backend 'warp'"):
        check_backends(("warp",))
    with pytest.raises(EngineError, match="no precision 'fp4'; expected fp32 or bf16 or fp8"):
        check_backends(("here:fp4",))
    with pytest.raises(EngineError, match="cannot run in fp8 here: too old"):
        check_backends(("here:fp8",))
    with pytest.raises(EngineError, match="backend gpu cannot run here: there is no GPU"):
        check_backends(("gpu",))
    monkeypatch.setattr("bench.backends.available_backends", lambda: {"gpu": "there is no GPU"})
    with pytest.raises(EngineError, match="no backend can run here"):
        check_backends(())


def test_a_precision_that_the_bundle_has_no_graphs_for_is_left_out_unless_asked_for(toy_bundle, monkeypatch):
    monkeypatch.setattr("bench.backends.available_backends", lambda: {"onnxruntime": None})
    able, absent = check_bundle(toy_bundle, ())
    assert able == ("onnxruntime:fp32",) and "has no int8 graph" in absent["onnxruntime:int8"]
    assert check_bundle(toy_bundle, ("onnxruntime",)) == (able, absent)
    with pytest.raises(BundleError, match="has no int8 graph"):
        check_bundle(toy_bundle, ("onnxruntime:fp32", "onnxruntime:int8"))


def test_a_gpu_backend_is_measured_unasked_and_one_that_refuses_costs_itself_alone(toy_bundle, monkeypatch):
    installed = {"onnxruntime": None, "trt": None, "onnxruntime-cuda": None}
    monkeypatch.setattr("bench.backends.available_backends", lambda: installed)
    monkeypatch.setattr("bench.backends.precisions", lambda name: {"fp32": None})

    def open_backend(bundle, backend, threads):
        if backend == "onnxruntime-cuda:fp32":
            raise EngineError("libcublas is missing")
        return open_engine(bundle, "onnxruntime", 1)

    monkeypatch.setattr("bench.backends.open_backend", open_backend)
    able, absent = check_bundle(toy_bundle, ())
    assert able == ("onnxruntime:fp32", "trt:fp32") and absent == {"onnxruntime-cuda:fp32": "libcublas is missing"}
    with pytest.raises(EngineError, match=r"onnxruntime-cuda cannot run this bundle here; got .*libcublas"):
        check_bundle(toy_bundle, ("trt", "onnxruntime-cuda"))
    installed |= {"onnxruntime": "not installed", "trt": "not installed"}
    with pytest.raises(EngineError, match=r"no backend can run this bundle here; got .*libcublas"):
        check_bundle(toy_bundle, ())


def test_a_batch_larger_than_a_fixed_profile_is_refused():
    class Engine:
        name, max_batch = "fake", 8

    check_batch(Engine(), (1, 8))
    with pytest.raises(EngineError, match="batches of at most 8; got 16"):
        check_batch(Engine(), (1, 16))


def test_a_branch_alone_runs_alone(toy_bundle):
    engine = open_engine(branch_view(toy_bundle, "spectrogram"), "onnxruntime", 1)
    rows = engine.run(np.zeros((1, toy_bundle.manifest.clip.samples), np.float32))
    engine.close()
    assert list(rows) == ["spectrogram"]
    assert branch_view(toy_bundle, FUSED) is toy_bundle
    assert targets_of(toy_bundle) == ("wav2vec2", "spectrogram", FUSED)


def test_engines_agree_with_the_reference(toy_bundle):
    reference = toy_bundle.reference()
    (found,) = agreement(toy_bundle, ["onnxruntime:fp32"], threads=1).values()
    assert (found.clips, found.flips) == (len(reference.fused), 0) and found.max_difference < 1e-5


def test_accuracy_comes_from_the_certificate_as_far_as_it_is_about_the_same_graphs(toy_bundle, tmp_path):
    assert speech_accuracy(toy_bundle) == {}
    bundle = replace(toy_bundle, root=tmp_path)
    member, digest = next(iter(bundle.manifest.files.items()))
    entry = entry_of(
        backend="onnxruntime", precision="fp32", graphs={member: digest}, speech=speech_of(200, 3, accuracy=0.75)
    )
    stale = replace(entry, precision="int8", graphs={member: "0"})
    without_speech = replace(entry, precision="bf16", speech=None)
    certificate = write_certificate(bundle, entry, stale, without_speech)
    assert speech_accuracy(bundle) == {"onnxruntime fp32": Accuracy("toys", 200, 0.75, 3)}
    certificate.write_text("{}")
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        speech_accuracy(bundle)
