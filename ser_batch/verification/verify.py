"""The whole of `ser-batch verify`: reference clips, labelled speech, both certificates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import Waveform
from ser_batch.engines.protocol import BACKENDS, Engine, available_backends, backend_version, open_engine
from ser_batch.errors import InputError, OutputError
from ser_batch.verification.compare import (
    BASELINE,
    Candidate,
    Candidates,
    Comparison,
    Key,
    Report,
    candidates,
    compare_reference,
    label_failures,
    source_failures,
)
from ser_batch.verification.page import markdown
from ser_batch.verification.records import (
    BundleCertificate,
    BundleEntry,
    MachineEntry,
    add_machine_entries,
    machine_id,
    new_bundle_certificate,
    read_bundle_certificate,
    write_bundle_certificate,
)
from ser_batch.verification.speech import LabelledSpeech, Progress, SpeechReport, compare_speech, find_labelled

Extend = Callable[[Bundle, Candidates], Candidates]
"""Given what runtimes can be compared in, returns what is compared: `ser-export verify` adds torch and emulations."""
_BATCH = 8
_ROUNDS = 3


@dataclass
class Verification:
    """What was found, and where it was written."""

    report: Report
    speech: SpeechReport | None = None
    certificates: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be written, and why."""

    @property
    def passed(self) -> bool:
        """Whether every comparison there had to be was made, and passed."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Each reason why it did not."""
        return self.report.failures + (self.speech.failures if self.speech is not None else ())

    def to_dict(self) -> dict[str, Any]:
        """The comparisons with torch's stored probabilities, as plain JSON types."""
        return {**self.report.to_dict(), "passed": self.passed, "failures": list(self.failures)}


def verify(
    path: Path | None,
    *,
    backends: Sequence[str] | None = None,
    threads: int | None = None,
    audio: Path | None = None,
    labels: str = "ravdess",
    extend: Extend | None = None,
    start_progress: Callable[[LabelledSpeech], Progress] | None = None,
) -> Verification:
    """Verify the bundle at `path`, and write what was found to this machine's certificate and the bundle's own.

    Args:
        path: None: the embedded bundle, whose own certificate is written only where there is labelled speech.
        backends, threads: see `candidates`.
        audio, labels: labelled speech; see `find_labelled`.
        start_progress: called with the speech before it is scored; what it returns is called after each batch.

    Raises:
        SerError: the bundle or the speech cannot be read. Anything else that fails is in the result.
    """
    bundle = load_bundle(path)
    listed = candidates(bundle, backends, threads)
    listed = extend(bundle, listed) if extend is not None else listed
    speech = find_labelled(audio, labels, bundle.labels) if audio is not None else None
    done = Verification(compare_reference(bundle, listed))
    if speech is not None:
        progress = start_progress(speech) if start_progress is not None else None
        done.speech = compare_speech(bundle, listed.found, speech, progress)
    if not done.report.comparisons:
        return done
    done.certificates.append(certify_machine(bundle, done.report, threads))
    if path is not None or speech is not None:
        try:
            done.certificates.append(certify_bundle(bundle, listed.found, done.report, done.speech))
        except OutputError as error:
            done.notes.append(str(error))
    return done


def certify_bundle(
    bundle: Bundle, found: Sequence[Candidate], report: Report, speech: SpeechReport | None = None
) -> Path:
    """Put what was found into the certificate in `bundle`; returns its path.

    Args:
        found: what was compared; `report` and `speech` hold the comparisons.

    Raises:
        OutputError: the bundle cannot be written; it is then what it was.
    """
    before: BundleCertificate | None
    try:
        before = read_bundle_certificate(bundle)
    except InputError:
        before = None  # damaged, or of another model: nothing of it can stay
    certificate = (before or new_bundle_certificate(bundle)).updated(_bundle_entries(bundle, found, report, speech))
    return write_bundle_certificate(bundle, certificate, markdown(certificate))


def certify_machine(bundle: Bundle, report: Report, threads: int | None = None) -> Path:
    """Measure the speed of everything in `report`, and write it all to this machine's certificate of `bundle`.

    Raises:
        EngineError: a runtime that ran in `report` no longer does.
        InputError, OutputError: the certificate cannot be read or written.
    """
    labels_are_sound = not list(label_failures(bundle))
    found: dict[Key, list[Comparison]] = {}
    for comparison in report.comparisons:
        if comparison.engine in BACKENDS:  # torch and emulations are nothing that `auto` could choose
            found.setdefault(comparison.key, []).append(comparison)
    speeds, now, entries = relative_speeds(bundle, list(found), threads), _now(), []
    for (backend, precision), comparisons in found.items():
        probabilities = [c for c in comparisons if c.output != EMBEDDING]
        differences = [c.max_difference for c in probabilities if c.max_difference is not None]
        entry = MachineEntry(
            backend=backend,
            precision=precision,
            device=comparisons[0].device,
            version=backend_version(backend),
            machine=machine_id(),
            created=now,
            passed=labels_are_sound and not any(reason for c in comparisons for reason in c.failures()),
            max_difference=max(differences, default=None),
            flips=sum(c.flips for c in probabilities),
            rows=sum(c.rows for c in probabilities),
            speed=speeds.get((backend, precision)),
        )
        entries.append(entry)
    return add_machine_entries(bundle, entries)


def relative_speeds(bundle: Bundle, keys: Sequence[Key], threads: int | None = None) -> dict[Key, float]:
    """Clips/s of each backend and precision relative to `BASELINE`; empty where that is not installed.

    They take turns, so that whatever else the machine does affects all of them, and the best turn of each counts.
    Enough to rank them; `bench` measures.

    Raises:
        EngineError: one cannot be opened or run.
    """
    if available_backends().get(BASELINE[0], "") is not None:
        return {}
    clips = bundle.reference().waveform
    batch = np.ascontiguousarray(np.resize(clips, (_BATCH, clips.shape[1])))
    engines: dict[Key, Engine] = {}
    try:
        for backend, precision in dict.fromkeys([BASELINE, *keys]):
            engines[backend, precision] = open_engine(bundle, backend, threads, precision, _BATCH)
            engines[backend, precision].run(batch)
        rounds = [{key: _seconds(engine, batch) for key, engine in engines.items()} for _ in range(_ROUNDS)]
    finally:
        for engine in engines.values():
            engine.close()
    best = {key: min(turn[key] for turn in rounds) for key in engines}
    return {key: best[BASELINE] / seconds for key, seconds in best.items()}


def _bundle_entries(
    bundle: Bundle, found: Sequence[Candidate], report: Report, speech: SpeechReport | None
) -> list[BundleEntry]:
    now, entries = _now(), []
    common = [*label_failures(bundle), *source_failures(bundle)]
    for candidate in found:
        reference = [c for c in report.comparisons if c.key == candidate.key]
        if not reference:
            continue
        spoken = speech.of(candidate.key) if speech is not None else []
        failures = [*common]
        failures += [reason for comparison in reference for reason in comparison.failures()]
        failures += [reason for comparison in spoken for reason in comparison.failures()]
        entries.append(
            BundleEntry(
                backend=candidate.backend,
                precision=candidate.precision,
                device=reference[0].device,
                version=candidate.version,
                machine=machine_id(),
                created=now,
                graphs=dict(candidate.graphs),
                passed=not failures,
                failures=tuple(failures),
                reference=tuple(c.difference for c in reference),
                speech=speech.record(candidate.key) if speech is not None else None,
            )
        )
    return entries


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _seconds(engine: Engine, batch: Waveform) -> float:
    began = time.perf_counter()
    engine.run(batch)
    return time.perf_counter() - began
