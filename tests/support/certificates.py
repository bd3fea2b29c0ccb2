"""Certificates of bundles, with entries that are sound but for what a test changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ser_batch.bundle.bundle import Bundle
from ser_batch.verification.records import (
    CERTIFICATE_FILE,
    BundleEntry,
    Difference,
    MachineEntry,
    SpeechDifference,
    SpeechRecord,
    machine_id,
    new_bundle_certificate,
)

SOUND = MachineEntry(
    backend="slow",
    precision="fp32",
    device="cpu",
    version="1.0",
    machine=machine_id(),
    created="2026-11-22T12:00:00+00:00",
    passed=True,
    max_difference=1e-6,
    flips=0,
    rows=36,
    speed=1.0,
)
"""A machine's entry about the reference clips."""


def speech_of(clips: int, flips: int, accuracy: float = 0.75) -> SpeechRecord:
    """Labelled speech of which `flips` fused labels are others."""
    found = {"rows": clips, "max_difference": 1e-3, "mean_difference": 1e-4, "non_finite": 0, "accuracy": accuracy}
    outputs = tuple(
        SpeechDifference(output=output, flips=count, flip_rate=count / clips, accuracy_difference=0.0, **found)
        for output, count in (("wav2vec2", 3 * flips), ("fused", flips))
    )
    return SpeechRecord("toys", clips, 64 * "0", outputs)


def entry_of(**changes: Any) -> BundleEntry:
    sound = BundleEntry(
        backend="fast",
        precision="int8",
        device="cpu",
        version="1.0",
        machine="a processor, 2 CPUs",
        created="2026-11-22T12:00:00+00:00",
        graphs={},
        passed=True,
        failures=(),
        reference=(Difference("fused", 16, 1e-3, 1e-4, 0, 0),),
        speech=None,
    )
    return dataclasses.replace(sound, **changes)


def certificate_json(bundle: Bundle, *entries: BundleEntry) -> dict[str, Any]:
    """The content of certificate.json, to be changed and written."""
    content = json.dumps(dataclasses.asdict(new_bundle_certificate(bundle).updated(entries)))
    return dict(json.loads(content))


def write_certificate(bundle: Bundle, *entries: BundleEntry) -> Path:
    path = bundle.root / CERTIFICATE_FILE
    path.write_text(json.dumps(certificate_json(bundle, *entries)))
    return path
