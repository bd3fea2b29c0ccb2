from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.manifest import Embedding
from ser_batch.engines import BACKENDS, available_backends, open_engine, precisions
from ser_batch.errors import BundleError, EngineError
from support.toy import make_toy_bundle, toy_embedding


def fake_backend(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str | None, precisions: tuple[str, ...] = ("fp32",)
) -> ModuleType:
    """Register a backend of one's own, as a new file in engines/ would."""
    members = {
        "PRECISIONS": precisions,
        "unavailable": lambda: reason,
        "unsupported": lambda precision: None,
        "version": lambda: "1.0",
        "open_bundle": lambda *arguments: (name, *arguments),
    }
    module = ModuleType(f"fake_{name}")
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BACKENDS, name, module.__name__)
    return module


def test_onnxruntime_is_there_in_fp32_by_default(toy_bundle: Bundle) -> None:
    assert available_backends()["onnxruntime"] is None
    engine = open_engine(toy_bundle, "onnxruntime", threads=1)
    assert (engine.name, engine.precision, engine.device) == ("onnxruntime", "fp32", "cpu")


def test_a_backend_is_one_module_and_one_line(monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle) -> None:
    fake_backend(monkeypatch, "abacus", None)
    assert available_backends()["abacus"] is None
    assert open_engine(toy_bundle, "abacus", threads=3, batch=16) == ("abacus", toy_bundle, 3, "fp32", 16, False)


def test_an_engine_is_opened_for_the_embedding_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle, embedding_bundle: Bundle
) -> None:
    fake_backend(monkeypatch, "abacus", None)
    assert open_engine(embedding_bundle, "abacus", embedding=True)[-1] is True  # type: ignore[index]
    with pytest.raises(BundleError, match=r"has no embedding: its graphs give probabilities alone.*ser-export onnx"):
        open_engine(toy_bundle, "abacus", embedding=True)


def test_an_unknown_backend_lists_what_exists(monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle) -> None:
    fake_backend(monkeypatch, "abacus", "pip install abacus")
    with pytest.raises(EngineError, match=r"onnxruntime \(available\), .*abacus \(not available\)"):
        open_engine(toy_bundle, "tensorflow")


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle) -> None:
    fake_backend(monkeypatch, "abacus", "install it with pip install abacus")
    with pytest.raises(EngineError, match="abacus cannot run here: install it with pip install abacus"):
        open_engine(toy_bundle, "abacus")


def test_a_precision_the_backend_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle) -> None:
    fake_backend(monkeypatch, "abacus", None, ("fp32", "bf16"))
    assert open_engine(toy_bundle, "abacus", precision="bf16")[3] == "bf16"  # type: ignore[index]
    with pytest.raises(EngineError, match="abacus has no such precision; got int8; expected fp32 or bf16"):
        open_engine(toy_bundle, "abacus", precision="int8")


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(toy_bundle: Bundle, threads: int) -> None:
    with pytest.raises(EngineError, match="at least one thread"):
        open_engine(toy_bundle, "onnxruntime", threads=threads)


def test_asking_what_is_available_imports_no_runtime() -> None:
    script = (
        "import sys; from ser_batch.engines import available_backends; available_backends();"
        "print('onnxruntime' in sys.modules or 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_available_backend_reproduces_the_reference(toy_bundle: Bundle) -> None:
    reference = toy_bundle.reference()
    compared = 0
    for name, reason in available_backends().items():
        if reason is not None:
            continue
        engine = open_engine(toy_bundle, name, threads=1)
        for branch, rows in engine.run(reference.waveform).items():
            np.testing.assert_allclose(rows, reference.branches[branch], atol=1e-5, err_msg=f"{name} {branch}")
            compared += 1
        engine.close()
    assert compared >= 2


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
)
def test_the_embedding_comes_beside_the_same_probabilities(
    embedding_bundle: Bundle, backend: str, precision: str, batch: int
) -> None:
    if (reason := available_backends()[backend] or precisions(backend)[precision]) is not None:
        pytest.skip(reason)
    clips = np.resize(embedding_bundle.reference().waveform, (11, 144_000))
    plain, both = (
        open_engine(embedding_bundle, backend, 2, precision, batch, embedding=wanted) for wanted in (False, True)
    )
    expected, found = plain.run(clips), both.run(clips)
    assert list(expected) == ["wav2vec2", "spectrogram"]
    np.testing.assert_allclose(found.pop("embedding"), toy_embedding(clips), atol=1e-3 if precision == "fp32" else 0.1)
    assert list(found) == list(expected)
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, atol=1e-6 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_without_the_embedding_that_its_bundle_states_is_refused(tmp_path: Path, backend: str) -> None:
    if (reason := available_backends()[backend]) is not None:
        pytest.skip(reason)

    def claim(arguments: dict[str, Any]) -> None:
        first, second = arguments["branches"]
        arguments["branches"] = (replace(first, embedding=None), replace(second, embedding=Embedding("embedding", 8)))

    bundle = make_toy_bundle(tmp_path / "bundle", embedding=True, edit=claim)
    with pytest.raises(EngineError, match="does not have the output that its bundle states"):
        open_engine(bundle, backend, threads=1)
