"""`bench`: the commands that measure (`bench.commands`), and `compare`, `report`, `own-labels` and `smoke`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.commands import BACKENDS, BUNDLE, JSON, MEASUREMENTS, PATH
from ser_batch import command_line

if TYPE_CHECKING:
    from ser_batch.bundle.bundle import Bundle


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """What scoring costs here, and beside what one would pick instead."""


for _measurement in MEASUREMENTS:
    cli.add_command(_measurement)


@cli.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@JSON
def compare(first: Path, second: Path, json_path: Path | None) -> None:
    """Print the ratios of SECOND to FIRST, two results of one kind, row by row."""
    from bench import results
    from bench.environment import machine_line
    from bench.tables import Table, show

    documents = [results.read(first), results.read(second)]
    found = results.compare(*documents)
    rows = [(r.key, f"{r.first:.4g}", f"{r.second:.4g}", r.unit, f"{r.ratio:.3f}") for r in found.ratios]
    show(Table(f"{second} / {first}", ("row", "first", "second", "unit", "ratio"), rows))
    for name, keys in ((first, found.only_first), (second, found.only_second)):
        for key in keys:
            click.echo(f"only in {name}: {key}")
    one, other = (machine_line(document["environment"]) for document in documents)
    if one != other:
        click.echo(f"note: measured on {one}; then on {other}", err=True)
    if json_path:
        results.write(dataclasses.asdict(found), json_path)


@cli.command()
@click.argument("given", metavar="RESULT...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="HTML page to write.")
@click.option("--docs", "pages", type=PATH, multiple=True, help="Markdown page whose regions to renew; repeatable.")
def report(given: tuple[Path, ...], out: Path | None, pages: tuple[Path, ...]) -> None:
    """Write pages of every RESULT, a file or a folder of them: one in HTML, or the generated regions of Markdown.

    `bench report bench/results --docs docs/benchmarks.md --docs docs/scaling.md` renews the documentation.
    """
    if not (out or pages):
        raise click.UsageError("nothing to write: give --out PAGE.html, --docs PAGE.md, or both.")
    from bench.report import renew_page, write_html
    from bench.results import read_all

    found = read_all(given)
    if out:
        write_html(found, out)
    for page in pages:
        renew_page(page, found)


@cli.command()
@click.argument("corpora", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@BUNDLE
@click.option("--scored", required=True, type=PATH, help="Folder for the predictions; those that are there are used.")
@click.option("--docs", "page", type=PATH, help="Markdown page whose region own_labels to renew.")
def own_labels(corpora: tuple[Path, ...], bundle: Bundle, scored: Path, page: Path | None) -> None:
    """Fit a head to each FOLDER of recordings with a clips.csv of path, label and speaker, and print the figures.

    They are cross-validated, with speakers apart, beside what the bundle says of the same recordings by itself, as it
    is and adapted by the true shares of the labels.
    """
    from bench.own_labels import measure_corpora, renew, table

    text = table(measure_corpora(corpora, bundle, scored), bundle)
    click.echo(text)
    if page:
        renew(page, text)


@cli.command()
@BUNDLE
@BACKENDS
@JSON
def smoke(bundle: Bundle, backends: tuple[str, ...], json_path: Path | None) -> None:
    """Print a few ratios in under a minute beside the committed ones; it informs, and exits 0 whatever they are."""
    from bench import environment, results
    from bench.backends import check_bundle
    from bench.smoke import COMMITTED, deltas, smoke_ratios
    from bench.tables import Table, show

    surroundings = environment.describe()
    ratios = smoke_ratios(bundle, check_bundle(bundle, backends)[0])
    before = results.read(COMMITTED) if COMMITTED.is_file() else None
    changes = deltas(ratios, before and before["ratios"])
    rows = [(n, f"{r:.3f}", "no committed ratio" if d is None else f"{d:+.1%}") for n, r, d in changes]
    show(Table("bench smoke", ("ratio", "now", "Δ"), rows))
    here, there = environment.machine_line(surroundings), before and environment.machine_line(before["environment"])
    if there and there != here:
        click.echo(f"note: the committed ratios were measured on {there}; this machine is {here}", err=True)
    if json_path:
        results.write(results.document("smoke", surroundings, ratios=ratios), json_path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or 2 with one line on what is wrong."""
    with _progress():
        return command_line.run(cli, "bench", arguments, interrupted="nothing was written")


class _Lines(logging.Handler):
    """What was just measured, a line each on stderr; stdout has the tables alone."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextmanager
def _progress() -> Iterator[None]:
    """Show what the modules that measure log of their progress."""
    logger, lines = logging.getLogger("bench"), _Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(lines)
