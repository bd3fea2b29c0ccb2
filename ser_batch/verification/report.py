"""What `ser-batch verify` found, as tables on the terminal, and the bundle's certificate as a page, CERTIFICATE.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ser_batch.verification.records import TOLERANCES, BundleCertificate, BundleEntry, Difference, Tolerance

if TYPE_CHECKING:
    from rich.table import Table

    from ser_batch.verification.compare import Report
    from ser_batch.verification.speech import SpeechReport
    from ser_batch.verification.verify import Verification


def print_verification(done: Verification) -> None:
    """Tables of everything compared, then what was not, what failed, and the verdict."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    if done.report.comparisons:
        console.print(_reference_table(done.report))
    if done.speech is not None and done.speech.results:
        console.print(_speech_table(done.speech))
    for runtime, reason in done.report.absent.items():
        console.print(f"not compared: {runtime}: {reason}", markup=False, soft_wrap=True)
    for note in done.notes:
        console.print(f"not written: {note}", markup=False, soft_wrap=True)
    for reason in done.failures:
        console.print(f"FAILED  {reason}", markup=False, soft_wrap=True)
    console.print("passed" if done.passed else "failed", style="green" if done.passed else "red")


def _reference_table(report: Report) -> Table:
    numeric = ("rows", "max |Δp|", "mean |Δp|", "tolerance", "flips", "not finite")
    table = _table(f"{report.bundle} against the probabilities torch gave", ("runtime", "precision", "output"), numeric)
    for c in report.comparisons:
        tolerance = TOLERANCES.get(c.precision)
        bound = tolerance.max_difference if tolerance is not None else None
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference, bound)]
        table.add_row(c.engine, c.precision, c.output, str(c.rows), *figures, str(c.flips), str(c.non_finite))
    return table


def _speech_table(report: SpeechReport) -> Table:
    speech = report.speech
    numeric = ("max |Δp|", "mean |Δp|", "flips", "not finite", "accuracy", "difference")
    title = f"{len(speech.targets)} labelled clips of {speech.corpus} against onnxruntime fp32"
    table = _table(title, ("runtime", "precision", "output"), numeric)
    for result in report.results:
        c = result.comparison
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference)]
        flips = f"{c.flips} ({c.flips / c.rows:.2%})"
        accuracy = (f"{result.accuracy:.2%}", f"{100 * result.accuracy_difference:+.2f}")
        table.add_row(c.engine, c.precision, c.output, *figures, flips, str(c.non_finite), *accuracy)
    return table


def _table(title: str, names: Sequence[str], numeric: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numeric:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def markdown(certificate: BundleCertificate) -> str:
    """CERTIFICATE.md: what was compared with what, and every figure beside its tolerance."""
    return "\n".join(_lines(certificate)) + "\n"


def _lines(certificate: BundleCertificate) -> Iterator[str]:
    entries = sorted(certificate.entries, key=lambda e: (e.machine, e.backend, e.precision))
    yield f"# Certificate of {certificate.bundle}"
    yield ""
    yield "Written by `ser-batch verify`; certificate.json holds the same figures. It is about the model with sha256"
    yield f"`{certificate.model_sha256}` and the graphs named there."
    yield from _tolerance_lines(certificate.gates)
    yield ""
    yield "`torch` is the trained run itself. `emulated` is the graph of that precision with every tensor it holds"
    yield "rounded to it, products summed in fp32: no device of that precision was run."
    yield from _speech_lines(entries)
    yield from _reference_lines(entries)
    yield from _failure_lines(entries)
    yield ""
    yield "## Where and when"
    yield ""
    yield "| runtime | precision | version | machine | when |"
    yield "|---|---|---|---|---|"
    for e in entries:
        yield f"| {e.backend} | {e.precision} | {e.version} | {e.machine}, {e.device} | {e.created} |"


def _tolerance_lines(tolerances: Mapping[str, Tolerance]) -> Iterator[str]:
    yield ""
    yield "| precision | reference clips, max \\|Δp\\| at most | labelled speech, fused labels that flip at most |"
    yield "|---|---:|---:|"
    for precision, tolerance in tolerances.items():
        yield f"| {precision} | {tolerance.max_difference:.0e} | {tolerance.flip_rate:.1%} |"
    yield ""
    yield "In fp32 the bound on |Δp| holds on labelled speech too, and no label of any output may flip."


def _speech_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    for clips, corpus, sha256 in sorted({_set(e) for e in entries if e.speech is not None}):
        yield from ("", f"## {clips:,} labelled clips of {corpus}, against onnxruntime fp32", "")
        yield f"Names and labels: sha256 `{sha256}`."
        yield "Accuracy is over all of them: where the model was trained on some, it is no measure of the model"
        yield "(MODEL_CARD.md has that), but the differences are those of the precision."
        yield ""
        numbers = "max \\|Δp\\| | mean \\|Δp\\| | flips | not finite | accuracy | difference"
        yield f"| runtime | precision | output | {numbers} | |"
        yield "|---|---|---|---:|---:|---:|---:|---:|---:|---|"
        for e in entries:
            if e.speech is None or _set(e) != (clips, corpus, sha256):
                continue
            for o in e.speech.outputs:
                yield (
                    f"| {e.backend} | {e.precision} | {_differences(o)} | {o.flips} ({o.flip_rate:.2%}) "
                    f"| {o.non_finite} | {o.accuracy:.2%} | {100 * o.accuracy_difference:+.2f} points | {_verdict(e)} |"
                )


def _reference_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    yield ""
    yield "## Reference clips, against the probabilities torch gave when the model was exported"
    yield ""
    yield "| runtime | precision | output | max \\|Δp\\| | mean \\|Δp\\| | rows | flips | not finite | |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for e in entries:
        for o in e.reference:
            figures = f"{o.rows} | {o.flips} | {o.non_finite} | {_verdict(e)}"
            yield f"| {e.backend} | {e.precision} | {_differences(o)} | {figures} |"


def _failure_lines(entries: Sequence[BundleEntry]) -> Iterator[str]:
    reasons = dict.fromkeys(reason for e in entries for reason in e.failures)
    if reasons:
        yield from ("", "## What failed", "")
        yield from (f"- {reason}" for reason in reasons)


def _set(entry: BundleEntry) -> tuple[int, str, str]:
    speech = entry.speech
    return (speech.clips, speech.corpus, speech.sha256) if speech is not None else (0, "", "")


def _differences(output: Difference) -> str:
    return " | ".join([output.output, _scientific(output.max_difference), _scientific(output.mean_difference)])


def _verdict(entry: BundleEntry) -> str:
    return "passed" if entry.passed else "**failed**"


def _scientific(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
