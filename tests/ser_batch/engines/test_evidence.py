"""The certificate in a bundle, as `auto` reads it: nothing but what was proved on enough labelled speech counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.writing import add_artefacts
from ser_batch.clips import ClipRule
from ser_batch.engines.evidence import EVIDENCE_CLIPS, EVIDENCE_FILE, Proof, proofs
from ser_batch.errors import InputError
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)
GRAPH = "precisions/int8/wav2vec2.onnx"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return add_artefacts(make_toy_bundle(tmp_path / "bundle", clip=SMALL), {GRAPH: b"graph"})


def entry(bundle: Bundle, **changes: Any) -> dict[str, Any]:
    outputs = [{"output": "wav2vec2", "flips": 9}, {"output": "fused", "flips": 3}]
    sound = {
        "backend": "fast",
        "precision": "int8",
        "version": "1.0",
        "passed": True,
        "graphs": {GRAPH: bundle.manifest.files[GRAPH]},
        "speech": {"clips": EVIDENCE_CLIPS, "outputs": outputs},
    }
    return {**sound, **changes}


def certify(bundle: Bundle, *entries: dict[str, Any], **changes: Any) -> None:
    content = {"schema_version": 1, "model_sha256": bundle.sha256, "entries": list(entries), **changes}
    (bundle.root / EVIDENCE_FILE).write_text(json.dumps(content))


def test_without_a_certificate_nothing_is_proven(bundle: Bundle) -> None:
    assert proofs(bundle) == {}


def test_what_passed_on_labelled_speech_is_proven(bundle: Bundle) -> None:
    certify(bundle, entry(bundle))
    assert proofs(bundle) == {("fast", "int8", "1.0"): Proof(EVIDENCE_CLIPS, 3)}


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"speech": None},
        {"speech": {"clips": EVIDENCE_CLIPS - 1, "outputs": [{"output": "fused", "flips": 0}]}},
        {"graphs": {GRAPH: 64 * "0"}},
        {"graphs": {"precisions/int8/absent.onnx": 64 * "0"}},
    ],
    ids=["failed", "reference clips only", "too few clips", "another graph", "a graph that is gone"],
)
def test_anything_less_is_not(bundle: Bundle, changes: dict[str, Any]) -> None:
    certify(bundle, entry(bundle, **changes))
    assert proofs(bundle) == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda bundle: certify(bundle, model_sha256=64 * "0"),
        lambda bundle: certify(bundle, schema_version=2),
        lambda bundle: certify(bundle, entries={}),
        lambda bundle: certify(bundle, {"passed": True}),
        lambda bundle: certify(bundle, entry(bundle, speech={"clips": "many"})),
        lambda bundle: (bundle.root / EVIDENCE_FILE).write_text("[]"),
        lambda bundle: (bundle.root / EVIDENCE_FILE).write_text("{"),
        lambda bundle: (bundle.root / EVIDENCE_FILE).write_bytes(b"\xff"),
    ],
)
def test_a_damaged_certificate_or_another_model_s_is_refused(bundle: Bundle, write: Callable[[Bundle], Any]) -> None:
    write(bundle)
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        proofs(bundle)
