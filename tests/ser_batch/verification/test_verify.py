"""`ser-batch verify`: both certificates, written by the command, read by `auto`, and valid for as long as they hold."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.writing import add_artefacts
from ser_batch.cli import main
from ser_batch.clips import ClipRule
from ser_batch.command_line import USAGE
from ser_batch.engines import backend_version
from ser_batch.errors import OutputError
from ser_batch.verification import auto
from ser_batch.verification.auto import choose, proofs
from ser_batch.verification.cli import FAILED
from ser_batch.verification.compare import BASELINE, candidates, compare_reference
from ser_batch.verification.page import markdown
from ser_batch.verification.records import (
    BundleCertificate,
    machine_certificate_path,
    machine_id,
    read_bundle_certificate,
    read_machine_certificate,
    write_bundle_certificate,
)
from ser_batch.verification.verify import certify_bundle, certify_machine
from support.toy import BRANCHES, LABELS, make_toy_bundle
from support.toy_speech import write_speech

CLIP = ClipRule(samples=24_000)
OUTPUTS = [*BRANCHES, "fused"]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle without certificates; one made in the same second elsewhere has the same sha256."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_toy_bundle(tmp_path / "bundle", clip=CLIP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"), CLIP)


def command(bundle: Bundle, *arguments: object) -> int:
    return main(["verify", str(bundle.root), "--backend", "onnxruntime", "--threads", "1", *map(str, arguments)])


def written(bundle: Bundle) -> BundleCertificate:
    certificate = read_bundle_certificate(bundle)
    assert certificate is not None
    return certificate


def permuted(path: Path) -> Bundle:
    """A bundle whose labels are in another order than the training run recorded."""
    record = {"labels": list(LABELS[::-1])}
    return make_toy_bundle(path, clip=CLIP, edit=lambda a: a.update(provenance=record))


def test_the_command_writes_both_files_and_the_bundle_still_opens(
    bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(bundle, "--audio", folder) == 0
    shown = capsys.readouterr()
    assert "5 labelled clips of ravdess against onnxruntime fp32" in shown.out
    assert str(bundle.root / "certificate.json") in shown.err
    assert load_bundle(bundle.root).id == bundle.id
    certificate = written(bundle)
    assert certificate.model_sha256 == bundle.sha256
    (entry,) = certificate.entries
    assert (entry.backend, entry.precision, entry.machine) == ("onnxruntime", "fp32", machine_id())
    assert entry.passed and entry.failures == ()
    assert [output.output for output in entry.reference] == OUTPUTS
    speech = entry.speech
    assert speech is not None and (speech.corpus, speech.clips) == ("ravdess", 5)
    assert [(o.output, o.rows, o.flips, o.accuracy_difference) for o in speech.outputs] == [
        (output, 5, 0, 0.0) for output in OUTPUTS
    ]
    table = (bundle.root / "CERTIFICATE.md").read_text()
    assert bundle.sha256 in table and f"| {speech.outputs[2].accuracy:.2%} |" in table
    assert proofs(bundle) == {}, "five clips prove nothing"
    monkeypatch.setattr(auto, "ENOUGH_CLIPS", 5)
    assert [proof.flips for proof in proofs(bundle).values()] == [0]


def test_a_bundle_that_fails_says_so_in_its_certificate(tmp_path: Path) -> None:
    bundle = permuted(tmp_path / "bundle")
    assert command(bundle) == FAILED
    assert [entry.passed for entry in written(bundle).entries] == [False]
    table = (bundle.root / "CERTIFICATE.md").read_text()
    assert "**failed**" in table and "the training run's record has permuted labels" in table


def test_what_speech_showed_outlives_a_run_without_it(bundle: Bundle, folder: Path) -> None:
    command(bundle, "--audio", folder)
    command(bundle)
    (entry,) = written(bundle).entries
    assert entry.speech is not None and entry.speech.clips == 5


def test_entries_of_other_machines_stay(bundle: Bundle) -> None:
    command(bundle)
    certificate = written(bundle)
    other = replace(certificate.entries[0], machine="another processor, 2 CPUs")
    write_bundle_certificate(bundle, replace(certificate, entries=(other,)), "")
    command(bundle)
    assert [entry.machine for entry in written(bundle).entries] == [other.machine, machine_id()]
    assert "another processor" in markdown(written(bundle)) == (bundle.root / "CERTIFICATE.md").read_text()


def test_a_damaged_certificate_is_replaced(bundle: Bundle) -> None:
    (bundle.root / "certificate.json").write_text("{")
    assert command(bundle) == 0
    assert read_bundle_certificate(bundle) is not None


def test_adding_a_graph_keeps_the_certificate(bundle: Bundle) -> None:
    command(bundle)
    before = (bundle.root / "certificate.json").read_bytes()
    assert (add_artefacts(bundle, {"precisions/int8/x.onnx": b"x"}).root / "certificate.json").read_bytes() == before


def test_where_the_bundle_cannot_be_written_the_command_says_so_and_goes_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Read-only file system")

    found = candidates(bundle, ["onnxruntime"], 1)
    report = compare_reference(bundle, found)
    with monkeypatch.context() as patch:
        patch.setattr("ser_batch.files.write_atomically", refuse)
        with pytest.raises(OutputError, match="cannot be written into"):
            certify_bundle(bundle, found.found, report)
    monkeypatch.setattr(
        "ser_batch.verification.verify.write_bundle_certificate", lambda *_: (_ for _ in ()).throw(OutputError("full"))
    )
    assert command(bundle) == 0
    assert "not written: full" in capsys.readouterr().out
    assert not (bundle.root / "certificate.json").exists()


def test_the_embedded_bundle_s_own_certificate_needs_labelled_speech(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_batch.bundle.bundle.default_root", lambda: bundle.root)
    assert main(["verify", "--backend", "onnxruntime", "--threads", "1"]) == 0
    assert not (bundle.root / "certificate.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audio", "{tmp}"], "no audio found"),
        (["--audio", "{speech}", "--labels", "{tmp}/no.csv"], "cannot be read"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_what_cannot_be_read_exits_2(
    bundle: Bundle, folder: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [a.format(tmp=tmp_path / "empty", speech=folder) for a in arguments]
    assert command(bundle, *filled) == USAGE
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path / "empty") == []  # noqa: PTH208


def test_it_writes_the_machine_s_certificate_by_which_auto_chooses(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not read_machine_certificate(bundle).entries
    assert main(["verify", str(bundle.root), "--threads", "1"]) == 0
    assert str(machine_certificate_path(bundle)) in capsys.readouterr().err
    entries = {(entry.backend, entry.precision): entry for entry in read_machine_certificate(bundle).entries}
    assert entries[BASELINE].speed == 1.0
    for (backend, _), entry in entries.items():
        assert entry.passed and entry.speed is not None and entry.speed > 0
        assert (entry.machine, entry.version) == (machine_id(), backend_version(backend))
        assert entry.rows == 3 * 2 * len(bundle.reference().waveform) and entry.max_difference is not None
    fastest = max(entries.values(), key=lambda entry: entry.speed or 0)
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == (fastest.backend, fastest.precision)


def test_labels_that_are_permuted_fail_every_entry_of_the_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = permuted(tmp_path / "bundle")
    report = compare_reference(bundle, candidates(bundle, ["onnxruntime"], threads=1))
    assert not report.passed and report.comparisons
    certify_machine(bundle, report, threads=1)
    assert [entry.passed for entry in read_machine_certificate(bundle).entries] == [False]
