"""Which backend and precision `--backend auto` takes, and why: the fastest that was verified here for this bundle."""

from __future__ import annotations

from dataclasses import dataclass

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.certificate import Entry, load_certificate, machine_id
from ser_batch.engines.evidence import proofs
from ser_batch.engines.protocol import available_backends, backend_version, precisions
from ser_batch.errors import EngineError

AUTO = "auto"
_ADVICE = "ser-export verify on this machine lets a faster one be chosen"


@dataclass(frozen=True)
class Choice:
    """A backend, a precision and the reason for them."""

    backend: str
    precision: str
    reason: str
    """One clause, for the summary of a run."""


def choose(bundle: Bundle, backend: str = AUTO, precision: str | None = None) -> Choice:
    """Settle on a backend and a precision.

    "auto" takes the fastest that is installed and that `ser-export verify` passed for this bundle, on this machine,
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
    valid = [entry for entry in load_certificate(bundle).entries if _holds_here(entry)]
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


def _wanted(backend: str, precision: str | None) -> str:
    """The precision asked for, or the backend's default one."""
    return precision or next(iter(precisions(backend)))


def _subject(entry: Entry) -> tuple[str, str, str]:
    """What a proof is about."""
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
            "every backend here failed ser-export verify for this bundle",
            got=", ".join(f"{name} {found}" for name, found in runs.items()),
            remedy="Run ser-export verify to see why, or name one with --backend.",
        )
    offered = "; ".join(f"{name}: {', '.join(precisions(name))}" for name in installed)
    raise EngineError("no backend here runs in that precision", got=precision, expected=offered)
