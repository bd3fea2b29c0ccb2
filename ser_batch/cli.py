"""`ser-batch run | evaluate | adapt | report | head | verify | info`: each parses, calls one function and prints.

The library is imported inside the commands, so that `--help` and a single file start fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ser_batch import command_line
from ser_batch.adaptation.cli import adapt
from ser_batch.command_line import INTERRUPTED, USAGE
from ser_batch.errors import OutputError, SerError
from ser_batch.evaluation.cli import evaluate
from ser_batch.report.cli import report
from ser_batch.verification.cli import verify

if TYPE_CHECKING:
    from ser_batch.decode.process import DecodeProcess
    from ser_batch.pipeline.config import RunConfig
    from ser_batch.pipeline.executor import Executor
    from ser_batch.pipeline.progress import JsonLines, Listener, Log
    from ser_batch.pipeline.run import Watch

Command = Callable[..., int]
SOME_FAILED = 3
AUTO = "auto"

EXIT_CODES = f"""\b
Exit codes:
  0    every recording was scored
  {SOME_FAILED}    some recordings failed: their rows have status "error" and the reason
  {USAGE}    nothing was done, or the run had to stop: the message says why
       (what was made is kept: --resume)
  {INTERRUPTED}  interrupted; go on with --resume
"""


def _count_or_auto(_: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == AUTO:
        return None
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number of at least 1 nor {AUTO!r}.", param=parameter)


def _shard(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    part, slash, count = value.partition("/")
    if slash and part.isdecimal() and count.isdecimal():
        return int(part), int(count)
    raise click.BadParameter(f"{value!r} is not of the form 2/8.", param=parameter)


def _count(name: str, text: str) -> Callable[[Command], Command]:
    """Declare an option that takes a number of at least 1, or "auto" (None)."""
    return click.option(name, default=AUTO, show_default=True, metavar="N", callback=_count_or_auto, help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Speech emotion recognition: directories of audio to a Parquet table of probabilities."""


@cli.command(epilog=EXIT_CODES)
@click.argument("audio", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="preds.parquet, .csv, .jsonl, .xlsx; or DIR/ for parts.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Model bundle.  [default: the embedded one]")
@click.option("--backend", default=AUTO, show_default=True, help="Runtime; `info` lists them.")
@click.option("--precision", metavar="P", help="fp32, bf16, fp16 or int8.  [default: the backend's]")
@click.option("--window", type=float, metavar="S", help="A row for each S seconds of a recording, not one for all.")
@click.option("--hop", type=float, metavar="S", help="Seconds from one window to the next.  [default: the window]")
@click.option(
    "--clip", type=click.Choice(["whole", "first"]), help="What is scored of long recordings.  [default: whole]"
)
@click.option("--min-duration", type=float, default=0.0, metavar="S", help="Less sound is status short, no label.")
@click.option(
    "--silence", type=float, metavar="DBFS", help="Up to this RMS, status silent, no label.  [-60; see below]"
)
@click.option(
    "--channels", default="mix", show_default=True, metavar="mix|split|first|N", help="split: a row for each."
)
@click.option("--aggregate", type=click.Path(), metavar="FILE", help="Also write one row per recording.")
@click.option("--root", type=click.Path(), metavar="DIR", help="Where a table's paths start.  [default: its folder]")
@click.option("--shard", callback=_shard, metavar="I/N", help="Take the I-th of N parts of the recordings.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where to run.")
@click.option("--ray-address", metavar="ADDRESS", help="A cluster's.  [default: RAY_ADDRESS, else this machine]")
@_count("--ray-actors", "Actors at most; auto: as many as there is room for.")
@_count("--ray-cpus", "CPUs of an actor; auto: its share beside a GPU, else up to 4.")
@click.option("--ray-gpus", type=float, default=0.0, metavar="N", help="GPUs of an actor; 0.5 is half of one.")
@_count("--batch-size", "Clips scored together; auto: 16 or 4 per CPU, on a GPU 64.")
@_count("--workers", "Decode processes at most; auto: one per CPU, up to 32.")
@_count("--threads", "CPU threads of the runtime.")
@click.option("--file-timeout", type=float, default=120.0, show_default=True, metavar="S", help="For decoding a file.")
@click.option("--no-branches", is_flag=True, help="Leave out the branches' own probabilities.")
@click.option(
    "--embeddings",
    is_flag=False,
    flag_value="float16",
    type=click.Choice(["float16", "float32"]),
    help="Also write embeddings; alone, as float16.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output, or an unfinished one.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished output, or add to a finished one.")
@click.option("--retry-errors", is_flag=True, help="With --resume: try recordings again that failed.")
@click.option("--max-errors", type=int, metavar="N", help="Stop when more than N recordings have failed.")
@click.option("--fail-over", type=float, metavar="RATIO", help="Stop when more than this share has failed.")
@click.option("--json", "as_json", is_flag=True, help="Progress and summary as JSON lines on stdout.")
@click.option("--log", type=click.Path(path_type=Path), metavar="FILE", help="Add starts, failures and ends to FILE.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def run(quiet: bool, as_json: bool, log: Path | None, **options: Any) -> int:
    """Score AUDIO and write one row per recording; with --window, one row per segment.

    AUDIO is folders, searched for recordings, recordings and globs; or tables of recordings: CSV, JSON lines or
    Parquet with a column path (optionally id, start, end or duration; others are handed through), a .txt of paths,
    or Parquet with the audio in a column. AUDIO and OUT may be in object stores: s3://BUCKET/KEY, gs://BUCKET/KEY.
    Without --window, a recording of up to two clips is one clip, as long as the bundle says; a longer one is scored
    by clips over all of it, and its row is their mean. A recording that cannot be read is a row with the reason.
    Rows go out in parts; OUT appears whole. Windows, and clips of a long recording, are silent up to -60 dBFS; a
    recording of one clip is, if every sample is zero.
    """
    if options["overwrite"] and options["resume"]:
        raise click.UsageError("--overwrite starts anew and --resume goes on: give one of them.")
    if options["retry_errors"] and not options["resume"]:
        raise click.UsageError("--retry-errors is for --resume: give both.")
    from ser_batch.decode.process import DecodeProcess

    # It starts while the run's other modules are imported, which takes as long.
    with closing(DecodeProcess()) if options["engine"] == "local" else nullcontext() as process:
        return _run(quiet, as_json, log, options, process)


def _run(quiet: bool, as_json: bool, log: Path | None, options: dict[str, Any], process: DecodeProcess | None) -> int:
    from ser_batch.files import writing
    from ser_batch.pipeline import summary
    from ser_batch.pipeline.progress import JsonLines, Log
    from ser_batch.pipeline.run import run as run_it

    json_lines, log_file = JsonLines(sys.stdout) if as_json else None, Log(log) if log else None
    watch = _watch(json_lines, log_file, bar=sys.stderr.isatty() and not quiet)
    try:
        with command_line.interruptible():
            executor = _executor(options, process)
            result = run_it(_config(options), executor, watch)
    except (SerError, KeyboardInterrupt) as error:
        if log_file:
            # What stopped the run may be the log itself.
            with suppress(OutputError):
                log_file.write(f"stopped: {str(error) or 'interrupted'}")
        raise
    text = summary.format_summary(result.summary)
    if log_file:
        log_file.write(f"done\n{text}")
    for line in summary.failure_lines(result.summary, result.failed_paths):
        click.echo(line, err=True)
    if json_lines:
        json_lines.write(summary.summary_json(result.summary))
    elif not quiet:
        with writing("standard output"):
            click.echo(text)
    return SOME_FAILED if result.summary.failures else 0


def _executor(options: dict[str, Any], process: DecodeProcess | None) -> Executor:
    """Take from `options` where the run is done: on a cluster, or here, with the decode process."""
    engine = options.pop("engine")
    given = {name: options.pop(f"ray_{name}") for name in ("address", "actors", "cpus", "gpus")}
    if engine == "ray":
        from ser_batch.pipeline.ray.cluster import Placement
        from ser_batch.pipeline.ray.executor import RayExecutor

        return RayExecutor(Placement(**given))
    if any(given.values()):
        raise click.UsageError("the --ray- options are for --engine ray: give that, too.")
    from ser_batch.pipeline.local import LocalExecutor

    return LocalExecutor(process=process)


def _config(options: dict[str, Any]) -> RunConfig:
    from ser_batch.pipeline.config import RunConfig

    return RunConfig(branch_columns=not options.pop("no_branches"), **options)


@cli.command()
@click.argument("labels", metavar="LABELS")
@click.option("--embeddings", "predictions", required=True, type=click.Path(), help="What `run --embeddings` wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write, a directory.")
@click.option("--bundle", type=click.Path(path_type=Path), help="That made it.  [default: the embedded one]")
@click.option("--label-column", metavar="NAME", help="Column of LABELS.  [label]")
@click.option("--by", metavar="COLUMN", help="What is kept apart in cross-validation.  [speaker, where there is one]")
@click.option("--map", "label_map", metavar="A=B,…", help="What labels mean to the bundle; A= leaves A out.")
@click.option("--name", help="Name of the new bundle.  [default: its folder's]")
@click.option("--json", "json_out", type=click.Path(path_type=Path), help="Also write every figure to this file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle, and an existing --json file.")
def head(
    labels: str,
    predictions: str,
    out: Path,
    bundle: Path | None,
    label_map: str | None,
    json_out: Path | None,
    overwrite: bool,
    **options: Any,
) -> int:
    """Fit a classifier for labels of your own, and write it as a bundle.

    LABELS is a table as `evaluate` takes it: a column path (or file, or id) and a column label, any words. At least
    ten scored recordings of each label; a few hundred are better, of many speakers. With the embeddings of a run, a
    logistic regression takes seconds to a minute, and needs no torch and no audio.

    Prints the cross-validated UA beside what always the same label, and the bundle's own answer, would give: speakers
    are apart where a column says who they are. Each label counts alike, whatever its number of rows.
    """
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.bundle.writing import check_target
    from ser_batch.evaluation.evaluate import Question
    from ser_batch.evaluation.label_map import parse_map
    from ser_batch.files import write_json, writing
    from ser_batch.heads.head import fit_head, format_head, write_head

    check_target(out, overwrite)
    if json_out and json_out.exists() and not overwrite:
        raise OutputError(f"{json_out} exists already", remedy="Choose another, or replace it: --overwrite.")
    said, corpora = parse_map(label_map or "")
    question = Question(labels, options["label_column"], label_map=said, corpora=corpora, by=options["by"])
    base = load_bundle(bundle)
    fitted = fit_head(predictions, base, question)
    click.echo(format_head(fitted, base))
    if json_out:
        with writing(json_out):
            write_json(json_out, fitted.to_dict())
    made = write_head(fitted, base, out, name=options["name"], overwrite=overwrite)
    click.echo(f"{made.id} in {out}")
    click.echo(f"next: ser-batch run AUDIO --bundle {out} --out preds.parquet")
    return 0


cli.add_command(adapt)
cli.add_command(evaluate)
cli.add_command(report)
cli.add_command(verify)


@cli.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object, the whole manifest included.")
def info(bundle: Path | None, as_json: bool) -> int:
    """Print what BUNDLE (default: the embedded one) is, how well it does, and which backends can run here."""
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.files import json_text
    from ser_batch.info import describe, page

    opened = load_bundle(bundle)
    click.echo(json_text(describe(opened)).rstrip() if as_json else page(opened))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code (see `EXIT_CODES`) is returned."""
    return command_line.run(
        cli, "ser-batch", arguments, interrupted="the rows made so far are kept: go on with --resume"
    )


def _watch(json_lines: JsonLines | None, log: Log | None, *, bar: bool) -> Watch:
    """Who is told of a run's progress: all that were asked for, at once."""
    from ser_batch.pipeline.progress import progress_bar, together

    @contextmanager
    def watch(total: int) -> Iterator[Listener | None]:
        listeners: list[Listener] = [listener for listener in (json_lines, log) if listener]
        if log:
            log.write(f"started: {total} recordings; {' '.join(sys.argv)}")
        if bar and not json_lines:
            with progress_bar(total) as shown:
                yield together([*listeners, shown])
        else:
            yield together(listeners)

    return watch
