"""The certificate that travels in a bundle: certificate.json for machines, CERTIFICATE.md for readers.

An entry is one runtime in one precision on one machine; entries of other machines are kept. What was found on labelled
speech outlives a later run without it, as long as runtime and graphs are the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.candidates import Candidate
from export.certificate_table import markdown
from export.gates import GATES
from export.labelled import Labelled, LabelledReport
from export.parity import Comparison, Report, label_failures, source_failures
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.certificate import machine_id
from ser_batch.engines.evidence import EVIDENCE_FILE, EVIDENCE_SCHEMA, read_evidence
from ser_batch.errors import InputError, OutputError

TABLE_FILE = "CERTIFICATE.md"


def write_certificate(
    bundle: Bundle, found: Sequence[Candidate], report: Report, labelled: LabelledReport | None = None
) -> Path:
    """Put what was found into the certificate in `bundle`; returns its path.

    Args:
        found: what was compared; `report` and `labelled` hold the comparisons.

    Raises:
        OutputError: the bundle cannot be written; it is then what it was.
    """
    entries = _entries(bundle, found, report, labelled)
    try:
        before = read_evidence(bundle)
    except InputError:
        before = None  # damaged, or of another model: nothing of it can be kept
    content = certificate(bundle, entries, before["entries"] if before else [])
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        # Made beside the bundle: a crash must leave no file in it that it does not list.
        with tempfile.TemporaryDirectory(dir=bundle.root.resolve().parent, prefix=f".{bundle.root.name}.") as folder:
            for name, written in ((EVIDENCE_FILE, text), (TABLE_FILE, markdown(content))):
                new = Path(folder) / name
                new.write_text(written, encoding="utf-8")
                new.replace(bundle.root / name)
    except OSError as error:
        raise OutputError(f"the certificate cannot be written into {bundle.root}", got=error) from error
    return bundle.root / EVIDENCE_FILE


def certificate(bundle: Bundle, entries: list[dict[str, Any]], before: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of certificate.json: `entries`, and those of `before` about anything else."""
    older = {_key(entry): entry for entry in before}
    for entry in entries:
        same = older.pop(_key(entry), None)
        if entry["speech"] is None and same is not None and _what(same) == _what(entry) and same["passed"]:
            entry["speech"] = same["speech"]
    return {
        "schema_version": EVIDENCE_SCHEMA,
        "model_sha256": bundle.sha256,
        "bundle": bundle.id,
        "gates": {precision: asdict(gate) for precision, gate in GATES.items()},
        "entries": [*older.values(), *entries],
    }


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[field] for field in ("machine", "backend", "precision", "device"))


def _what(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["version"], entry["graphs"]


def _entries(
    bundle: Bundle, found: Sequence[Candidate], report: Report, labelled: LabelledReport | None
) -> list[dict[str, Any]]:
    now, entries = datetime.now(UTC).isoformat(timespec="seconds"), []
    common = [*label_failures(bundle), *source_failures(bundle)]
    for candidate in found:
        reference = [c for c in report.comparisons if (c.engine, c.precision) == candidate.key]
        if not reference:
            continue
        spoken = [] if labelled is None else [r for r in labelled.results if _of(r.comparison) == candidate.key]
        failures = [*common, *(reason for part in (*reference, *spoken) for reason in part.failures())]
        entries.append(
            {
                "backend": candidate.backend,
                "precision": candidate.precision,
                "device": reference[0].device,
                "version": candidate.version,
                "machine": machine_id(),
                "created": now,
                "graphs": dict(candidate.graphs),
                "passed": not failures,
                "failures": failures,
                "reference": [_measured(c) for c in reference],
                "speech": _speech(labelled, spoken) if labelled is not None and spoken else None,
            }
        )
    return entries


def _of(comparison: Comparison) -> tuple[str, str]:
    return comparison.engine, comparison.precision


def _speech(labelled: LabelledReport, results: Sequence[Labelled]) -> dict[str, Any]:
    return {
        "corpus": labelled.speech.corpus,
        "clips": len(labelled.speech.targets),
        "sha256": labelled.speech.sha256,
        "outputs": [
            {
                **_measured(result.comparison),
                "flip_rate": result.comparison.flips / result.comparison.rows,
                "accuracy": result.accuracy,
                "accuracy_difference": result.accuracy_difference,
            }
            for result in results
        ],
    }


def _measured(comparison: Comparison) -> dict[str, Any]:
    names = ("output", "rows", "max_difference", "mean_difference", "flips", "non_finite")
    return {name: getattr(comparison, name) for name in names}
