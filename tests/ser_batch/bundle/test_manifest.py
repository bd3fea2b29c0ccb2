"""The manifest: strict about every key, and about what would leave the bundle or contradict itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ser_batch.bundle.manifest import Branch, Embedding, Manifest, check_member, parse_manifest
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError

DIGEST = "0" * 64
MANIFEST = Manifest(
    name="toy",
    labels=("calm", "très gai"),
    clip=ClipRule(16_000, 8_000, 0.25),
    branches=(Branch("wav2vec2", "w.onnx"), Branch("spectrogram", "sub/s.onnx", "in", "out")),
    fusion_file="fusion.npz",
    reference_file="reference.npz",
    files=dict.fromkeys(("fusion.npz", "reference.npz", "sub/s.onnx", "w.onnx"), DIGEST),
    provenance={"seed": 1, "nested": {"list": [1, 2.5, None]}},
    metrics={"accuracy": 0.5},
    licence="Apache-2.0",
    created="2025-01-01T00:00:00+00:00",
)


def edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    data = json.loads(MANIFEST.to_json())
    change(data)
    return json.dumps(data).encode()


def test_it_survives_json() -> None:
    assert parse_manifest(MANIFEST.to_json().encode()) == MANIFEST


def test_it_is_readable() -> None:
    text = MANIFEST.to_json()
    assert '\n  "labels": [\n    "calm",\n    "très gai"\n  ]' in text
    assert text.startswith('{\n  "schema_version": 1,')
    assert text.endswith("}\n")


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None])
def test_another_schema_is_refused_before_anything_else(version: object) -> None:
    raw = edited(lambda data: data.update(schema_version=version, something_new=1))
    with pytest.raises(BundleError, match=r"schema version that is not known; got .*newer ser-batch"):
        parse_manifest(raw)


def test_no_schema_is_refused() -> None:
    with pytest.raises(BundleError, match="schema version"):
        parse_manifest(b"{}")


@pytest.mark.parametrize("key", [key for key in json.loads(MANIFEST.to_json()) if key != "schema_version"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(BundleError, match=rf"manifest.json lacks {key}"):
        parse_manifest(edited(lambda data: data.pop(key)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), "manifest.json has unknown keys: extra"),
        (lambda d: d["clip"].update(window=1), "manifest.json: clip has unknown keys: window"),
        (lambda d: d["clip"].pop("offset"), "clip lacks offset"),
        (lambda d: d["branches"][0].update(sha256="x"), r"branches\[0\] has unknown keys: sha256"),
        (lambda d: d["branches"][0].pop("input"), r"branches\[0\] lacks input"),
        (lambda d: d.update(labels="calm"), "labels is of another type; got 'calm'; expected a list"),
        (lambda d: d.update(labels=["calm", 1]), r"labels\[1\] is of another type; got 1; expected a string"),
        (lambda d: d["files"].update({"w.onnx": 1}), "files: w.onnx is of another type; got 1"),
        (lambda d: d["clip"].update(samples=True), "samples is of another type.*expected an integer"),
        (lambda d: d["clip"].update(samples=1.5), "samples is of another type.*expected an integer"),
        (lambda d: d["clip"].update(offset="0"), "offset is of another type.*expected a number"),
        (lambda d: d["clip"].update(samples=10**400), "samples is of another type.*expected an integer"),
        (lambda d: d["clip"].update(offset=10**400), "offset is of another type.*expected a number"),
        (lambda d: d["clip"].update(samples=0), "clip: a clip rule needs a positive rate and length"),
        (lambda d: d["clip"].update(offset=-1), "clip: a clip rule needs a positive rate and length"),
        (lambda d: d.update(branches=["w.onnx"]), r"branches\[0\] is not an object"),
        (lambda d: d.update(metrics=None), "metrics is of another type.*expected an object"),
        (lambda d: d.update(branches=[]), "no branches"),
        (lambda d: d["branches"][1].update(name="wav2vec2"), r"branches are named twice.*\['wav2vec2'\]"),
        (lambda d: d["branches"][1].update(name="Spec-1"), "no identifier"),
        (lambda d: d["branches"][1].update(output=""), "does not name"),
        (lambda d: d.update(labels=["calm", "calm"]), r"labels are named twice.*\['calm'\]"),
        (lambda d: d.update(labels=["calm", " "]), "none empty"),
        (lambda d: d.update(labels=["calm", "sad\n"]), "none empty"),
        (lambda d: d.update(labels=["calm"]), "at least two labels"),
        (lambda d: d.update(name="../evil"), "name is not plain"),
        (lambda d: d["files"].pop("w.onnx"), "w.onnx is used but has no sha256"),
        (lambda d: d["files"].pop("fusion.npz"), "fusion.npz is used but has no sha256"),
        (lambda d: d["files"].pop("reference.npz"), "reference.npz is used but has no sha256"),
        (lambda d: d["files"].update({"w.onnx": DIGEST.upper() + "0"}), "sha256 of w.onnx is not one"),
        (lambda d: d["files"].update({"../w": DIGEST}), "leaves the bundle"),
        (lambda d: d["branches"][0].update(file="/etc/passwd"), "leaves the bundle"),
        (lambda d: d["files"].update({"manifest.json": DIGEST}), "cannot be one of the manifest's files"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        parse_manifest(edited(change))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1, "schema_version": 1}', b'{"a": NaN}'],
    ids=["empty", "cut", "not utf-8", "deep", "repeated key", "NaN"],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError, match="not valid JSON"):
        parse_manifest(raw)


def test_a_list_is_refused() -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is not an object"):
        parse_manifest(b"[]")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_metrics_that_json_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(BundleError, match="cannot be written as JSON"):
        replace(MANIFEST, metrics={"accuracy": value}).to_json()


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/a", "../a", "a/../../b", "a/./b", "a//b", "a/", "a\\b", "C:/a", "~\x00", "a\n"]
)
def test_paths_that_leave_or_confuse_are_refused(path: str) -> None:
    with pytest.raises(BundleError, match="leaves the bundle"):
        check_member(path)


@pytest.mark.parametrize("path", ["a", "a.onnx", "engines/trt-fp16/w.plan", "..a", "a..b", "ü.txt"])
def test_plain_paths_pass(path: str) -> None:
    check_member(path)


def test_an_embedding_is_optional_and_bundles_without_one_keep_their_identity() -> None:
    assert "embedding" not in MANIFEST.to_json() and MANIFEST.embedding is None
    first, second = MANIFEST.branches
    stated = replace(MANIFEST, branches=(first, replace(second, embedding=Embedding("e", 4))))
    assert parse_manifest(stated.to_json().encode()) == stated
    assert stated.embedding is not None and stated.embedding.name == "spectrogram"
    assert stated.identity != MANIFEST.identity
    with pytest.raises(BundleError, match="one embedding at most; got of branches wav2vec2, spectrogram"):
        replace(stated, branches=(replace(first, embedding=Embedding("e", 4)), stated.branches[1]))
    with pytest.raises(BundleError, match=r"no identifier; got 'embedding'"):
        Branch("embedding", "w.onnx")
    with pytest.raises(BundleError, match="one output for its probabilities and its embedding"):
        replace(first, embedding=Embedding("probabilities", 4))
    with pytest.raises(BundleError, match="name of an output and a size"):
        Embedding("e", 0)
