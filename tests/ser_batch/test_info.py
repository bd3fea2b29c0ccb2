from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule
from ser_batch.info import describe
from support.toy import LABELS, make_toy_bundle


def test_it_says_what_the_bundle_is(toy_bundle: Bundle) -> None:
    rows = dict(describe(toy_bundle))
    assert rows["bundle"] == toy_bundle.id
    assert rows["sha256"] == toy_bundle.sha256
    assert rows["path"] == str(toy_bundle.root)
    assert rows["labels"] == ", ".join(LABELS)
    assert rows["clip"] == "3 s at 48000 Hz, 144000 samples, offset 0.5 s"
    assert rows["licence"] == "Apache-2.0"
    assert rows["fusion"] == "softmax(W [wav2vec2; spectrogram] + b)"
    assert "waveform -> probabilities" in rows["branch wav2vec2"]
    assert rows["embedding"] == "none"
    assert rows["provenance.seed"] == "0"
    assert rows["backend onnxruntime"] == "available"


def test_it_names_the_embedding(embedding_bundle: Bundle) -> None:
    rows = dict(describe(embedding_bundle))
    assert rows["embedding"] == "of branch wav2vec2"
    assert rows["branch wav2vec2"].endswith("waveform -> probabilities, embedding (8)")


def test_every_row_is_one_line_of_text_under_its_own_name(toy_bundle: Bundle) -> None:
    rows = describe(toy_bundle)
    assert len({name for name, _ in rows}) == len(rows)
    assert all(name.isprintable() and value.isprintable() for name, value in rows)


def test_nested_metrics_are_dotted_and_control_characters_masked(tmp_path: Path) -> None:
    def edit(arguments: dict[str, Any]) -> None:
        arguments["metrics"] = {"test": {"fused": {"accuracy": 0.8}}}
        arguments["provenance"] = {"note": "red \x1b[31m"}

    bundle = make_toy_bundle(tmp_path / "bundle", clip=ClipRule(8_000, 8_000), edit=edit)
    rows = dict(describe(bundle))
    assert rows["metrics.test.fused.accuracy"] == "0.8"
    assert rows["provenance.note"] == "red \\x1b[31m"


def test_a_backend_that_is_missing_says_how_to_get_it(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_batch.engines.onnxruntime.unavailable", lambda: "pip install it")
    assert dict(describe(toy_bundle))["backend onnxruntime"] == "pip install it"


def test_engines_say_what_they_were_built_for(tmp_path: Path) -> None:
    from support.bundles import sealed, sidecar_of

    bundle = make_toy_bundle(tmp_path / "bundle", clip=ClipRule(sample_rate=8_000, samples=800))
    rows = dict(describe(sealed(bundle, sidecar_of(bundle))))
    assert rows["engines trt-rtx-fp32-ada"] == "trt-rtx 1.7.1.116 in fp32 for compute capability 8.9, batches of 1, 8"
