"""`ser-export onnx | verify`: each command parses, calls one library function and prints.

The library is imported inside the commands: `--help` is fast, and `verify` needs no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ser_batch import command_line
from ser_batch.command_line import USAGE
from ser_batch.errors import OutputError, SerError

if TYPE_CHECKING:
    from export.onnx_export import Exported
    from export.parity import Report

FAILED = 1

EXIT_CODES = f"""\b
Exit codes:
  0    everything was compared, and is equal within the stated tolerance
  {FAILED}    the bundle does not give what was trained, or nothing could be compared
  {USAGE}    nothing was done: the message says why
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Trained runs to bundles, and the proof that a bundle equals what was trained."""


@cli.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write, a directory.")
@click.option("--name", help="Name of the bundle.  [default: the run's recipe]")
@click.option("--licence", help="Licence note of the weights.  [default: what the run's corpus asks]")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
def onnx(run: Path, out: Path, name: str | None, licence: str | None, overwrite: bool) -> int:
    """Export RUN, a finished folder of `ser-train run`, to a bundle of ONNX graphs, and verify that."""
    _need_torch()
    from export.assemble import assemble
    from export.parity import verify as verify_bundle
    from training.runs import load_run

    assembled = assemble(load_run(run), out, name=name, licence=licence, overwrite=overwrite, progress=_print_export)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{assembled.bundle.id}: {size / 1e6:.2f} MB in {out}")
    report = verify_bundle(assembled.bundle)
    _print_report(report)
    return 0 if report.passed else FAILED


@cli.command(epilog=EXIT_CODES)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--backend", "backends", multiple=True, help="Runtime to compare; repeatable.  [default: all here]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of a runtime.  [default: its choice]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here, too.")
def verify(bundle: Path | None, backends: tuple[str, ...], threads: int | None, json_file: Path | None) -> int:
    """Recompute the reference probabilities of BUNDLE (default: the embedded one) in each installed runtime.

    What was found, and how fast each runtime is here, goes into this machine's certificate of the bundle, by which
    `ser-batch run --backend auto` chooses.
    """
    from export.certify import certify
    from export.parity import verify as verify_bundle
    from ser_batch.model.bundle import load_bundle

    model = load_bundle(bundle)
    report = verify_bundle(model, list(backends) or None, threads)
    if json_file is not None:
        _write(json_file, json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    _print_report(report)
    if report.comparisons:
        click.echo(f"certificate: {certify(model, report, threads)}", err=True)
    return 0 if report.passed else FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see `EXIT_CODES`) is returned."""
    return command_line.run(cli, "ser-export", arguments, interrupted="nothing was written")


def _need_torch() -> None:
    from importlib.util import find_spec

    missing = [package for package in ("torch", "transformers", "onnx", "onnxscript") if find_spec(package) is None]
    if missing:
        raise SerError(
            "an export needs what trained the model",
            got=f"no {', '.join(missing)}",
            remedy="Install it: pip install 'ser-batch[export,cpu]'.",
        )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written", got=error.strerror) from error


def _print_export(export: Exported) -> None:
    click.echo(
        f"{export.name}: {export.nodes} nodes, {export.path.stat().st_size / 1e6:.2f} MB, max |Δp| to torch "
        f"{export.max_difference:.1e}, {export.seconds:.1f} s"
    )


def _print_report(report: Report) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from export.parity import TOLERANCES

    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"{report.bundle} against the probabilities torch gave", box=box.SIMPLE_HEAD)
    numeric = ("rows", "max |Δp|", "mean |Δp|", "tolerance", "flips", "not finite")
    for column in ("runtime", "precision", "output", *numeric):
        table.add_column(column, justify="right" if column in numeric else "left", no_wrap=True)
    for c in report.comparisons:
        figures = [_scientific(x) for x in (c.max_difference, c.mean_difference, TOLERANCES.get(c.precision))]
        table.add_row(c.engine, c.precision, c.output, str(c.rows), *figures, str(c.flips), str(c.non_finite))
    if report.comparisons:
        console.print(table)
    for runtime, reason in report.absent.items():
        console.print(f"not compared: {runtime}: {reason}", markup=False)
    for reason in report.failures:
        console.print(f"FAILED  {reason}", markup=False, soft_wrap=True)
    console.print("passed" if report.passed else "failed", style="green" if report.passed else "red")


def _scientific(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"
