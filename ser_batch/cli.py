"""`ser-batch run | evaluate | info`: each command parses, calls one library function and prints.

The library is imported inside the commands, so that `--help` and a single file start fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ser_batch.errors import OutputError, SerError

if TYPE_CHECKING:
    from ser_batch.pipeline import Progress
    from ser_batch.summary import RunSummary

Command = Callable[..., int]
SOME_FAILED = 3
USAGE = 2
INTERRUPTED = 130
AUTO = "auto"

EXIT_CODES = f"""\b
Exit codes:
  0    every recording was scored
  {SOME_FAILED}    some recordings failed: their rows have status "error" and the reason
  {USAGE}    nothing was done, or the run had to stop: the message says why
  {INTERRUPTED}  interrupted; go on with --resume
"""


def _count_or_auto(_: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == AUTO:
        return None
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number of at least 1 nor {AUTO!r}.", param=parameter)


def _count(name: str, text: str) -> Callable[[Command], Command]:
    """Declare an option that takes a number of at least 1, or "auto" (None)."""
    return click.option(name, default=AUTO, show_default=True, metavar="N", callback=_count_or_auto, help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Speech emotion recognition: directories of audio to a Parquet table of probabilities."""


@cli.command(epilog=EXIT_CODES)
@click.argument("audio", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Model bundle.  [default: the embedded one]")
@click.option("--backend", default=AUTO, show_default=True, help="Runtime; `info` lists them.")
@_count("--batch-size", "Clips scored together.")
@_count("--workers", "Decode threads.")
@_count("--threads", "CPU threads of the runtime.")
@click.option("--no-branches", is_flag=True, help="Leave out the branches' own probabilities.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, or an unfinished one.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished output.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def run(
    audio: tuple[str, ...],
    out: Path,
    bundle: Path | None,
    backend: str,
    batch_size: int | None,
    workers: int | None,
    threads: int | None,
    no_branches: bool,
    overwrite: bool,
    resume: bool,
    quiet: bool,
) -> int:
    """Score AUDIO, recordings and folders searched for them, and write one row a recording.

    Of each recording the model hears one clip, as long as its bundle says. With one AUDIO, the column `file`
    is relative to it; with several, it starts with the AUDIO as given. A recording that cannot be read is a
    row with the reason. Rows are kept in OUT.parts/ until all are there; OUT appears whole.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite starts anew and --resume goes on: give one of them.")
    from ser_batch.parts import check_output
    from ser_batch.sources import find_audio

    sources = find_audio(audio)
    check_output(out, overwrite=overwrite, resume=resume)
    from ser_batch.bundle import load_bundle
    from ser_batch.engines import open_engine
    from ser_batch.pipeline import run as run_pipeline
    from ser_batch.scorer import Scorer

    model = load_bundle(bundle)
    engine = open_engine(model, backend, threads)
    try:
        with _progress_bar(len(sources), shown=sys.stderr.isatty() and not quiet) as progress:
            summary = run_pipeline(
                sources,
                Scorer(model, engine),
                out,
                batch_size=batch_size,
                workers=workers,
                branch_columns=not no_branches,
                overwrite=overwrite,
                resume=resume,
                progress=progress,
            )
    finally:
        engine.close()
    _report_failures(summary)
    if not quiet:
        click.echo(_format(summary, out, f"{model.id} on {engine.name} {engine.precision}, {engine.device}"))
    return SOME_FAILED if summary.failures else 0


@cli.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option(
    "--labels", required=True, metavar="ravdess|FILE", help="Labels: RAVDESS names, or a CSV or Parquet file."
)
@click.option("--split", type=click.Path(path_type=Path), help="A training run's split.json: measure one part of it.")
@click.option("--part", type=click.Choice(["train", "validation", "test"]), help="Which part.  [default: test]")
@click.option("--json", "json_out", type=click.Path(path_type=Path), help="Also write every figure to this file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --json file.")
def evaluate(
    predictions: Path, labels: str, split: Path | None, part: str | None, json_out: Path | None, overwrite: bool
) -> int:
    """Measure PREDICTIONS, a Parquet file of `run`, against the true labels.

    FILE has a column path (or file), relative to the folder that was scored, and a column label. Prints accuracy,
    UA, macro precision, recall and F1, calibration error and the confusion matrix of the fusion and of each branch,
    and how many rows are in none of them, and why.
    """
    if part and not split:
        raise click.UsageError("--part chooses a part of --split: give both.")
    from ser_batch.evaluate import evaluate_predictions, write_json
    from ser_batch.evaluation_text import format_evaluation

    if json_out and json_out.exists() and not overwrite:
        raise OutputError(f"{json_out} exists already", remedy="Choose another, or replace it: --overwrite.")
    served = evaluate_predictions(predictions, labels, split=split, part=part or "test")
    if json_out:
        write_json(served, json_out)
    click.echo(format_evaluation(served))
    return 0


@cli.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def info(bundle: Path | None) -> int:
    """Print what BUNDLE (default: the embedded one) is, and which backends can run here."""
    from ser_batch.bundle import load_bundle
    from ser_batch.info import describe

    rows = describe(load_bundle(bundle))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see `EXIT_CODES`) is returned, and a traceback means a bug."""
    try:
        return int(cli.main(arguments, prog_name="ser-batch", standalone_mode=False) or 0)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except SerError as error:
        click.echo(f"error: {error}", err=True)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; the rows made so far are kept: go on with --resume", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`); flushing at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def _progress_bar(total: int, *, shown: bool) -> Iterator[Progress | None]:
    """A progress bar on stderr, fed by the callback it yields; None where it is not shown."""
    if not shown:
        yield None
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[failed]} failed"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, failed=0)
        failures = 0

        def advance(rows: int, failed: int, _: float) -> None:
            nonlocal failures
            failures += failed
            bar.update(task, advance=rows, failed=failures)

        yield advance


def _report_failures(summary: RunSummary) -> None:
    for file, reason in summary.errors:
        # Names are the users' own, and may hold what would move the cursor.
        click.echo(f"failed: {_plain(file)}: {_plain(reason)}", err=True)
    if summary.failures > len(summary.errors):
        click.echo(f"failed: {summary.failures - len(summary.errors)} more, see column `error`", err=True)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _format(summary: RunSummary, out: Path, model: str) -> str:
    counts = ", ".join(f"{label} {count}" for label, count in summary.labels.items() if count)
    rows = [
        ("model", model),
        ("clips", f"{summary.clips}"),
        ("failures", f"{summary.failures}"),
        ("audio", f"{summary.audio_hours:.3f} hours heard"),
        ("labels", counts or "none"),
        ("time", f"{summary.seconds:.2f} s"),
        ("rate", f"{summary.clips_per_second:.1f} clips/s, {summary.real_time_factor:.0f} x real time"),
        ("memory", f"{summary.peak_rss / 2**20:.0f} MiB at most"),
        ("output", _plain(str(out))),
    ]
    if summary.reused:
        rows.insert(3, ("reused", f"{summary.reused} rows of an earlier run"))
    return "\n".join(f"{name:<9} {value}" for name, value in rows)
