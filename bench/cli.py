"""`bench`: what measures (`measure_cli`, `archive_cli`), and what is made of results: `compare | report | smoke`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bench.archive_cli import end_to_end, formats, resume, throughput
from bench.measure_cli import latency, peers, startup, training
from bench.options import BACKENDS, BUNDLE, JSON, PATH
from ser_batch import command_line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """What scoring costs here, and beside what one would pick instead."""


for _measurement in (latency, throughput, formats, resume, peers, end_to_end, startup, training):
    cli.add_command(_measurement)


@cli.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@JSON
def compare(first: Path, second: Path, json_path: Path | None) -> None:
    """Print the ratios of SECOND to FIRST, two results of one kind, row by row."""
    import dataclasses

    from bench import results
    from bench.compare import compare as compare_results
    from bench.console import show
    from bench.tables import Table

    found = compare_results(results.read(first), results.read(second))
    rows = [(r.key, f"{r.first:.4g}", f"{r.second:.4g}", r.unit, f"{r.ratio:.3f}") for r in found.ratios]
    show(Table(f"{second} / {first}", ("row", "first", "second", "unit", "ratio"), rows))
    for name, keys in ((first, found.only_first), (second, found.only_second)):
        for key in keys:
            click.echo(f"only in {name}: {key}")
    if json_path:
        results.write(dataclasses.asdict(found), json_path)


@cli.command()
@click.argument("given", metavar="[RESULT]...", nargs=-1, type=PATH)
@click.option("--out", type=PATH, help="HTML page to write.")
@click.option("--docs", is_flag=True, help="Write the generated part of docs/benchmarks.md from bench/results/.")
def report(given: tuple[Path, ...], out: Path | None, docs: bool) -> None:
    """Write an HTML page of RESULTs (default: the committed ones), or the page of the documentation."""
    if not (out or docs):
        raise click.UsageError("nothing to write: give --out PAGE.html, --docs, or both.")
    from bench import page, results
    from bench.report import write_report

    if out:
        found = [(path.name, results.read(path)) for path in given] or results.committed()
        if not found:
            raise click.UsageError(f"no RESULT given, and none committed in {results.FOLDER}")
        write_report(found, out)
    if docs:
        page.write_page()


@cli.command()
@BUNDLE
@BACKENDS
@JSON
def smoke(bundle: Path | None, backends: tuple[str, ...], json_path: Path | None) -> None:
    """Print a few ratios in under a minute beside the committed ones; it informs, and exits 0 whatever they are."""
    from bench import environment, results
    from bench.backends import check_backends, check_bundle
    from bench.console import show
    from bench.smoke import COMMITTED, deltas, smoke_ratios
    from bench.tables import Table
    from ser_batch.bundle.bundle import load_bundle

    surroundings = environment.describe()
    chosen, _ = check_backends(backends)
    model = load_bundle(bundle)
    ratios = smoke_ratios(model, check_bundle(model, chosen, backends)[0])
    before = results.read(COMMITTED)["ratios"] if COMMITTED.is_file() else None
    rows = [(n, f"{r:.3f}", "no committed ratio" if d is None else f"{d:+.1%}") for n, r, d in deltas(ratios, before)]
    show(Table("bench smoke", ("ratio", "now", "Δ"), rows))
    if json_path:
        results.write(results.document("smoke", surroundings, ratios=ratios), json_path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or 2 with one line on what is wrong."""
    return command_line.run(cli, "bench", arguments, interrupted="nothing was written")
