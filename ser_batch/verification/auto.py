"""What `--backend auto` chooses, and why: the fastest backend that was verified here for this bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines.protocol import available_backends, backend_version, precisions
from ser_batch.errors import EngineError
from ser_batch.verification.records import (
    BundleEntry,
    Entry,
    SpeechRecord,
    machine_id,
    read_bundle_certificate,
    read_machine_certificate,
)

AUTO = "auto"
ENOUGH_CLIPS = 500
"""Labelled clips that it takes to prove a lower precision; with fewer, half a percent is two clips: chance decides."""
_ADVICE = "ser-batch verify on this machine lets a faster one be chosen"

Subject = tuple[str, str, str]
"""Backend, precision and version of the runtime."""


@dataclass(frozen=True)
class Choice:
    """A backend, a precision and the reason for them."""

    backend: str
    precision: str
    reason: str
    """One clause, for the summary of a run."""


@dataclass(frozen=True)
class Proof:
    """A runtime in a precision that stayed within its tolerance on labelled speech."""

    clips: int
    flips: int
    """Of them, whose fused label is another one than in onnxruntime fp32."""


def choose(bundle: Bundle, backend: str = AUTO, precision: str | None = None) -> Choice:
    """Decide on a backend and a precision.

    "auto" takes the fastest that is installed and that `ser-batch verify` passed for this bundle, on this machine,
    with the version installed now; where there is no such certificate, the first backend that has not failed there.
    It takes a backend's default precision, or a lower one that the bundle's own certificate proves on labelled speech
    for that backend and version: the reference clips are too few to show how many labels it flips. Otherwise a lower
    precision must be asked for.

    Args:
        backend: a backend's name, which is taken as it is, or "auto".
        precision: what it must run in; None leaves it open.

    Raises:
        EngineError: no such backend, none installed, none of that precision, or all failed verification.
        InputError: a certificate is damaged.
    """
    if backend != AUTO:
        return Choice(backend, _wanted(backend, precision), "as asked")
    valid = [entry for entry in read_machine_certificate(bundle).entries if _holds_here(entry)]
    proven = {} if precision else proofs(bundle)
    passed = [e for e in valid if e.passed and e.speed is not None]
    allowed = [e for e in passed if e.precision == _wanted(e.backend, precision) or _subject(e) in proven]
    fastest = max(allowed, key=lambda e: e.speed or 0, default=None)
    if fastest is not None:
        why = f"the fastest verified here: {fastest.speed:.2f} x onnxruntime fp32, {fastest.created[:10]}"
        if (proof := proven.get(_subject(fastest))) and fastest.precision != _wanted(fastest.backend, None):
            why += f"; {fastest.precision} flips {proof.flips} of {proof.clips:,} labels"
        return Choice(fastest.backend, fastest.precision, why)
    return _unverified(precision, {(e.backend, e.precision) for e in valid if not e.passed})


def proofs(bundle: Bundle) -> Mapping[Subject, Proof]:
    """What the bundle's own certificate proves; nothing without one.

    Only what passed counts, on at least `ENOUGH_CLIPS` clips, and made from the graphs that the bundle holds now.

    Raises:
        InputError: the certificate is damaged, or about another model.
    """
    return {
        _subject(entry): Proof(speech.clips, output.flips)
        for entry, speech in current_speech(bundle)
        if entry.passed and speech.clips >= ENOUGH_CLIPS
        for output in speech.outputs
        if output.output == FUSED
    }


def current_speech(bundle: Bundle) -> list[tuple[BundleEntry, SpeechRecord]]:
    """The certificate's entries with labelled speech that are about the graphs that the bundle holds now.

    Raises:
        InputError: the certificate is damaged, or about another model.
    """
    certificate, held = read_bundle_certificate(bundle), bundle.manifest.files
    return [
        (entry, entry.speech)
        for entry in (certificate.entries if certificate else ())
        if entry.speech is not None and all(held.get(member) == digest for member, digest in entry.graphs.items())
    ]


def _wanted(backend: str, precision: str | None) -> str:
    """The precision asked for, or the backend's default one."""
    return precision or next(iter(precisions(backend)))


def _subject(entry: Entry) -> Subject:
    return entry.backend, entry.precision, entry.version


def _holds_here(entry: Entry) -> bool:
    """Whether an entry is about this machine, and the runtime that is installed now."""
    installed = available_backends().get(entry.backend, "there is no such backend") is None
    return installed and entry.machine == machine_id() and entry.version == backend_version(entry.backend)


def _unverified(precision: str | None, failed: set[tuple[str, str]]) -> Choice:
    reasons = available_backends()
    installed = [name for name, reason in reasons.items() if reason is None]
    if not installed:
        raise EngineError("no backend can run here", got="; ".join(f"{k}: {v}" for k, v in reasons.items()))
    wanted = {name: _wanted(name, precision) for name in installed}
    runs = {name: found for name, found in wanted.items() if precisions(name).get(found, "has none") is None}
    for name, found in runs.items():
        if (name, found) not in failed:
            return Choice(name, found, f"not verified on this machine; {_ADVICE}")
    if runs:
        raise EngineError(
            "every backend here failed ser-batch verify for this bundle",
            got=", ".join(f"{name} {found}" for name, found in runs.items()),
            remedy="Run ser-batch verify to see why, or name one with --backend.",
        )
    offered = "; ".join(f"{name}: {', '.join(precisions(name))}" for name in installed)
    raise EngineError("no backend here runs in that precision", got=precision, expected=offered)
