"""What `ser-export` prints of exports, graphs and comparisons."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from export.labelled import LabelledReport
    from export.onnx_export import Exported
    from export.parity import Report
    from export.precision import Lowered
    from export.verification import Verification


def export_line(export: Exported) -> str:
    """One line on an exported branch."""
    return (
        f"{export.name}: {export.nodes} nodes, {export.path.stat().st_size / 1e6:.2f} MB, max |Δp| to torch "
        f"{export.max_difference:.1e}, {export.seconds:.1f} s"
    )


def lowered_line(lowered: Lowered) -> str:
    """One line on a graph of lower precision."""
    return (
        f"{lowered.branch} {lowered.precision}: {lowered.nodes} nodes, {lowered.size / 1e6:.2f} MB, max |Δp| to torch "
        f"{lowered.max_difference:.1e} on the reference clips"
    )


def print_verification(done: Verification) -> None:
    """Tables of everything compared, then what was not, what failed, and the verdict."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    if done.report.comparisons:
        console.print(_reference_table(done.report))
    if done.labelled is not None and done.labelled.results:
        console.print(_speech_table(done.labelled))
    for runtime, reason in done.report.absent.items():
        console.print(f"not compared: {runtime}: {reason}", markup=False, soft_wrap=True)
    for note in done.notes:
        console.print(f"not written: {note}", markup=False, soft_wrap=True)
    for reason in done.failures:
        console.print(f"FAILED  {reason}", markup=False, soft_wrap=True)
    console.print("passed" if done.passed else "failed", style="green" if done.passed else "red")


def _reference_table(report: Report) -> Table:
    from export.parity import TOLERANCES

    numeric = ("rows", "max |Δp|", "mean |Δp|", "tolerance", "flips", "not finite")
    table = _table(f"{report.bundle} against the probabilities torch gave", ("runtime", "precision", "output"), numeric)
    for c in report.comparisons:
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference, TOLERANCES.get(c.precision))]
        table.add_row(c.engine, c.precision, c.output, str(c.rows), *figures, str(c.flips), str(c.non_finite))
    return table


def _speech_table(labelled: LabelledReport) -> Table:
    speech = labelled.speech
    numeric = ("max |Δp|", "mean |Δp|", "flips", "not finite", "accuracy", "difference")
    title = f"{len(speech.targets)} labelled clips of {speech.corpus} against onnxruntime fp32"
    table = _table(title, ("runtime", "precision", "output"), numeric)
    for result in labelled.results:
        c = result.comparison
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference)]
        flips = f"{c.flips} ({c.flips / c.rows:.2%})"
        accuracy = (f"{result.accuracy:.2%}", f"{100 * result.accuracy_difference:+.2f}")
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
