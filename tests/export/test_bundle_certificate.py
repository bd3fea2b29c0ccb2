"""certificate.json and CERTIFICATE.md: written by the command, read by `auto`, kept where they still hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import export.bundle_certificate
from export.bundle_certificate import certificate, write_certificate
from export.candidates import candidates
from export.certificate_table import markdown
from export.cli import FAILED, USAGE, main
from export.parity import verify
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.writing import add_artefacts
from ser_batch.clips import ClipRule
from ser_batch.engines import evidence
from ser_batch.engines.certificate import machine_id
from ser_batch.engines.evidence import proofs, read_evidence
from ser_batch.errors import OutputError
from support.toy import BRANCHES, LABELS, make_toy_bundle
from support.toy_speech import write_speech

CLIP = ClipRule(samples=24_000)
OUTPUTS = [*BRANCHES, "fused"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=CLIP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"), CLIP)


def command(bundle: Bundle, *arguments: object) -> int:
    return main(["verify", str(bundle.root), "--backend", "onnxruntime", "--threads", "1", *map(str, arguments)])


def test_the_command_writes_both_files_and_the_bundle_still_opens(
    bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(bundle, "--audio", folder) == 0
    shown = capsys.readouterr()
    assert "5 labelled clips of ravdess against onnxruntime fp32" in shown.out
    assert str(bundle.root / "certificate.json") in shown.err
    assert load_bundle(bundle.root).id == bundle.id
    content = read_evidence(bundle)
    assert content is not None and content["model_sha256"] == bundle.sha256
    (entry,) = content["entries"]
    assert (entry["backend"], entry["precision"], entry["machine"]) == ("onnxruntime", "fp32", machine_id())
    assert entry["passed"] and entry["failures"] == []
    assert [output["output"] for output in entry["reference"]] == OUTPUTS
    speech = entry["speech"]
    assert (speech["corpus"], speech["clips"]) == ("ravdess", 5)
    assert [(o["output"], o["rows"], o["flips"], o["accuracy_difference"]) for o in speech["outputs"]] == [
        (output, 5, 0, 0.0) for output in OUTPUTS
    ]
    table = (bundle.root / "CERTIFICATE.md").read_text()
    assert bundle.sha256 in table and f"| {speech['outputs'][2]['accuracy']:.2%} |" in table
    assert proofs(bundle) == {}, "five clips prove nothing"
    monkeypatch.setattr(evidence, "EVIDENCE_CLIPS", 5)
    assert [proof.flips for proof in proofs(bundle).values()] == [0]


def test_a_bundle_that_fails_says_so_in_its_certificate(tmp_path: Path) -> None:
    record = {"labels": list(LABELS[::-1])}
    bundle = make_toy_bundle(tmp_path / "bundle", clip=CLIP, edit=lambda a: a.update(provenance=record))
    assert command(bundle) == FAILED
    content = json.loads((bundle.root / "certificate.json").read_text())
    assert [entry["passed"] for entry in content["entries"]] == [False]
    table = (bundle.root / "CERTIFICATE.md").read_text()
    assert "**failed**" in table and "the training run's record has permuted labels" in table


def test_what_speech_showed_outlives_a_run_without_it_and_no_change_of_graphs(bundle: Bundle, folder: Path) -> None:
    command(bundle, "--audio", folder)
    command(bundle)
    content = read_evidence(bundle)
    assert content is not None and content["entries"][0]["speech"]["clips"] == 5
    changed = {**content["entries"][0], "version": "0.0"}
    fresh = {**content["entries"][0], "speech": None}
    for other, kept in ((content["entries"][0], True), (changed, False), ({**changed, "version": "1"}, False)):
        (entry,) = certificate(bundle, [dict(fresh)], [other])["entries"]
        assert (entry["speech"] is not None) == kept


def test_entries_of_other_machines_are_kept(bundle: Bundle) -> None:
    command(bundle)
    content = read_evidence(bundle)
    assert content is not None
    elsewhere = {**content["entries"][0], "machine": "another processor, 2 CPUs"}
    (bundle.root / "certificate.json").write_text(json.dumps({**content, "entries": [elsewhere]}))
    command(bundle)
    content = read_evidence(bundle)
    assert content is not None
    assert [entry["machine"] for entry in content["entries"]] == [elsewhere["machine"], machine_id()]
    assert "another processor" in markdown(content)


def test_a_damaged_certificate_is_replaced(bundle: Bundle) -> None:
    (bundle.root / "certificate.json").write_text("{")
    assert command(bundle) == 0
    assert read_evidence(bundle) is not None


def test_adding_a_graph_keeps_the_certificate(bundle: Bundle) -> None:
    command(bundle)
    before = (bundle.root / "certificate.json").read_bytes()
    assert (add_artefacts(bundle, {"precisions/int8/x.onnx": b"x"}).root / "certificate.json").read_bytes() == before


def test_where_the_bundle_cannot_be_written_the_command_says_so_and_goes_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(export.bundle_certificate.tempfile, "TemporaryDirectory", refuse)
    found = candidates(bundle, ["onnxruntime"], 1)
    with pytest.raises(OutputError, match="cannot be written into"):
        write_certificate(bundle, found.found, verify(bundle, listed=found))
    monkeypatch.undo()
    monkeypatch.setattr("export.verification.write_certificate", lambda *_: (_ for _ in ()).throw(OutputError("full")))
    assert command(bundle) == 0
    assert "not written: full" in capsys.readouterr().out
    assert not (bundle.root / "certificate.json").exists()


def test_the_embedded_bundle_s_own_certificate_needs_labelled_speech(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_batch.bundle.bundle.default_root", lambda: bundle.root)
    assert main(["verify", "--backend", "onnxruntime", "--threads", "1"]) == 0
    assert not (bundle.root / "certificate.json").exists()


def test_torch_is_compared_where_its_run_is_given(exported_bundle: Bundle, toy_run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--backend", "onnxruntime", "--threads", "1", "--run", str(toy_run), "--json", str(report)]
    assert main(["verify", str(exported_bundle.root), *arguments]) == 0
    found = json.loads(report.read_text())["comparisons"]
    assert [(c["engine"], c["output"]) for c in found][:3] == [("torch", output) for output in OUTPUTS]
    assert all(c["max_difference"] < 1e-6 for c in found[:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audio", "{tmp}"], "no audio found"),
        (["--run", "{tmp}"], "is not a finished run"),
        (["--audio", "{speech}", "--labels", "{tmp}/no.csv"], "cannot be read"),
    ],
)
def test_speech_or_a_run_that_is_not_there_exits_2(
    bundle: Bundle, folder: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [a.format(tmp=tmp_path / "empty", speech=folder) for a in arguments]
    assert command(bundle, *filled) == USAGE
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path / "empty") == []  # noqa: PTH208
