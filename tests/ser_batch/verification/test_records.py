"""Certificates on disk: what is written is read, what is damaged or about another model is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ser_batch import files
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import ClipRule
from ser_batch.errors import InputError, OutputError
from ser_batch.verification.records import (
    CERTIFICATE_FILE,
    add_machine_entries,
    machine_certificate_path,
    new_bundle_certificate,
    read_bundle_certificate,
    read_machine_certificate,
    write_bundle_certificate,
)
from support.certificates import SOUND, certificate_json, entry_of, speech_of, write_certificate
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


def test_the_embedded_certificate_is_read_and_would_be_written_as_it_is() -> None:
    bundle = load_bundle()
    certificate = read_bundle_certificate(bundle)
    assert certificate is not None and {entry.backend for entry in certificate.entries} >= {"torch", "onnxruntime"}
    assert all(entry.speech is not None and entry.speech.clips == 1_440 for entry in certificate.entries)
    text = (bundle.root / CERTIFICATE_FILE).read_text(encoding="utf-8")
    assert files.json_text(dataclasses.asdict(certificate)) == text


def test_what_is_written_into_a_bundle_is_read_and_the_bundle_still_opens(bundle: Bundle) -> None:
    certificate = new_bundle_certificate(bundle).updated([entry_of(speech=speech_of(5, 1))])
    assert write_bundle_certificate(bundle, certificate, "# page\n") == bundle.root / "certificate.json"
    assert read_bundle_certificate(bundle) == certificate
    assert (bundle.root / "CERTIFICATE.md").read_text() == "# page\n"
    assert load_bundle(bundle.root).id == bundle.id
    assert not [path for path in bundle.root.parent.iterdir() if path.suffix == ".tmp"]


def test_a_bundle_without_a_certificate_has_none(bundle: Bundle) -> None:
    assert read_bundle_certificate(bundle) is None


@pytest.mark.parametrize(
    ("older", "stays"),
    [({}, True), ({"version": "0.0"}, False), ({"graphs": {"a": "1"}}, False), ({"passed": False}, False)],
)
def test_speech_outlives_a_run_without_it_and_no_change_of_runtime_or_graphs(
    bundle: Bundle, older: dict[str, Any], stays: bool
) -> None:
    before = new_bundle_certificate(bundle).updated([entry_of(speech=speech_of(5, 0), **older)])
    (entry,) = before.updated([entry_of()]).entries
    assert (entry.speech is not None) == stays
    assert dataclasses.replace(entry, speech=None) == entry_of()


def test_newer_speech_replaces_older(bundle: Bundle) -> None:
    before = new_bundle_certificate(bundle).updated([entry_of(speech=speech_of(5, 0))])
    (entry,) = before.updated([entry_of(speech=speech_of(7, 1))]).entries
    assert entry.speech == speech_of(7, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(model_sha256=64 * "0"),
        lambda content: content.update(schema_version=2),
        lambda content: content.update(entries={}),
        lambda content: content.update(entries=[{"passed": True}]),
        lambda content: content["entries"][0]["speech"].update(clips="many"),
        lambda content: content["entries"][0]["reference"][0].pop("flips"),
        lambda content: content["entries"][0].update(extra=1),
        lambda content: content.clear(),
    ],
)
def test_a_damaged_certificate_or_another_model_s_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], Any]
) -> None:
    content = certificate_json(bundle, entry_of(speech=speech_of(5, 0)))
    change(content)
    (bundle.root / CERTIFICATE_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"certificate .*/certificate.json.*Delete it; ser-batch verify"):
        read_bundle_certificate(bundle)


@pytest.mark.parametrize("raw", [b"[]", b"{", b"\xff"])
def test_what_is_no_json_object_is_refused(bundle: Bundle, raw: bytes) -> None:
    write_certificate(bundle).write_bytes(raw)
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        read_bundle_certificate(bundle)


def test_newer_entries_of_the_machine_replace_older_ones_and_all_others_stay(bundle: Bundle) -> None:
    faster = dataclasses.replace(SOUND, backend="fast", speed=1.5)
    other = dataclasses.replace(SOUND, machine="another processor, 2 CPUs")
    add_machine_entries(bundle, [SOUND, faster, other])
    slower = dataclasses.replace(faster, speed=0.5, version="2.0", created="2026-11-23T12:00:00+00:00")
    path = add_machine_entries(bundle, [slower])
    assert read_machine_certificate(bundle).entries == (SOUND, slower, other)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"passed": true', '"passed": "yes"'),
        lambda text: text.replace('"speed": 1.0', '"speed": true'),
        lambda text: text.replace('"flips": 0,', ""),
        lambda text: "\udc80",
    ],
)
def test_a_damaged_certificate_of_the_machine_is_refused(bundle: Bundle, damage: Callable[[str], str]) -> None:
    path = add_machine_entries(bundle, [SOUND])
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        read_machine_certificate(bundle)


def test_another_bundle_s_certificate_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    add_machine_entries(bundle, [SOUND])
    other = make_toy_bundle(tmp_path / "other", clip=SMALL, seed=1)
    assert read_machine_certificate(other).entries == ()
    machine_certificate_path(other).write_bytes(machine_certificate_path(bundle).read_bytes())
    with pytest.raises(InputError, match=r"certificate .* is about another model.*Delete it"):
        read_machine_certificate(other)


def test_a_cache_that_cannot_be_written_is_an_output_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises((OutputError, InputError), match="certificate"):
        add_machine_entries(bundle, [SOUND])
