"""The whole of `ser-export verify`: reference clips, labelled speech, both certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.bundle_certificate import write_certificate
from export.candidates import candidates
from export.certify import certify
from export.labelled import LabelledReport, Progress, compare_labelled
from export.parity import Report, verify
from export.speech import LabelledSpeech, find_labelled
from ser_batch.bundle.bundle import load_bundle
from ser_batch.errors import OutputError, SerError


@dataclass
class Verification:
    """What was found, and where it was written."""

    report: Report
    labelled: LabelledReport | None = None
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
        return self.report.failures + (self.labelled.failures if self.labelled is not None else ())

    def to_dict(self) -> dict[str, Any]:
        """The comparisons with torch's stored probabilities, as plain JSON types."""
        return {**self.report.to_dict(), "passed": self.passed, "failures": list(self.failures)}


def run_verification(
    path: Path | None,
    *,
    backends: Sequence[str] | None = None,
    threads: int | None = None,
    run: Path | None = None,
    audio: Path | None = None,
    labels: str = "ravdess",
    listening: Callable[[LabelledSpeech], Progress] | None = None,
) -> Verification:
    """Verify the bundle at `path`, and write what was found to this machine's certificate and the bundle's own.

    Args:
        path: None: the embedded bundle, whose own certificate is written only where there is labelled speech.
        run: the trained run, to compare with torch itself.
        audio, labels: labelled speech; see `find_labelled`.
        listening: called with the speech before it is scored; what it returns is called after each batch.

    Raises:
        SerError: the bundle, the run or the speech cannot be read. Anything else that fails is in the result.
    """
    bundle = load_bundle(path)
    listed = candidates(bundle, backends, threads, _load_run(run) if run is not None else None)
    speech = find_labelled(audio, labels, bundle.labels) if audio is not None else None
    done = Verification(verify(bundle, listed=listed))
    if speech is not None:
        progress = listening(speech) if listening is not None else None
        done.labelled = compare_labelled(bundle, listed.found, speech, progress)
    if not done.report.comparisons:
        return done
    done.certificates.append(certify(bundle, done.report, threads))
    if path is not None or speech is not None:
        try:
            done.certificates.append(write_certificate(bundle, listed.found, done.report, done.labelled))
        except OutputError as error:
            done.notes.append(str(error))
    return done


def _load_run(folder: Path) -> Any:
    try:
        from training.runs import load_run
    except ImportError as error:
        raise SerError(
            "a comparison with torch needs what trained the model",
            got=error,
            remedy="Install it: pip install 'ser-batch[export,cpu]', or leave --run out.",
        ) from error
    return load_run(folder)
