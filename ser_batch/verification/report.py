"""What `ser-batch verify` found, as tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ser_batch.verification.compare import Report
from ser_batch.verification.speech import SpeechReport
from ser_batch.verification.verify import Verification


def print_verification(done: Verification) -> None:
    """Tables of everything compared, then what was not, what failed, and the verdict."""
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
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference, c.bound)]
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
        share, change = result.accuracy, result.accuracy_difference
        accuracy = ("–" if share is None else f"{share:.2%}", "–" if change is None else f"{100 * change:+.2f}")
        table.add_row(c.engine, c.precision, c.output, *figures, flips, str(c.non_finite), *accuracy)
    return table


def _table(title: str, names: Sequence[str], numeric: Iterable[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numeric:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _scientific(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
