from __future__ import annotations

from pathlib import Path

import pytest

from export.certify import BASELINE, certify
from export.cli import main
from export.parity import verify
from ser_batch.clips import ClipRule
from ser_batch.engines import backend_version
from ser_batch.engines.certificate import certificate_path, load_certificate, machine_id
from ser_batch.engines.choice import choose
from support.toy import LABELS, make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)


def test_verify_writes_the_certificate_by_which_auto_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL)
    assert not load_certificate(bundle).entries
    assert main(["verify", str(bundle.root), "--threads", "1"]) == 0
    assert str(certificate_path(bundle)) in capsys.readouterr().err
    entries = {(entry.backend, entry.precision): entry for entry in load_certificate(bundle).entries}
    assert entries[BASELINE].speed == 1.0
    for (backend, _), entry in entries.items():
        assert entry.passed and entry.speed is not None and entry.speed > 0
        assert (entry.machine, entry.version) == (machine_id(), backend_version(backend))
        assert entry.rows == 3 * 2 * len(bundle.reference().waveform) and entry.max_difference is not None
    fastest = max(entries.values(), key=lambda entry: entry.speed or 0)
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == (fastest.backend, fastest.precision)


def test_labels_that_are_permuted_fail_every_entry(tmp_path: Path) -> None:
    record = {"labels": list(LABELS[::-1])}
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL, edit=lambda a: a.update(provenance=record))
    report = verify(bundle, ["onnxruntime"], threads=1)
    assert not report.passed and report.comparisons
    certify(bundle, report, threads=1)
    assert [entry.passed for entry in load_certificate(bundle).entries] == [False]
