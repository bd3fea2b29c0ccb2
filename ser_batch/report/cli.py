"""`ser-batch report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ser_batch.errors import InputError
from ser_batch.evaluation.cli import AMONG, BY, LABEL_COLUMN, MAP


@click.command()
@click.argument("predictions", type=click.Path())
@click.argument("second", required=False, type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--labels", metavar="CORPUS|FILE", help="True labels, as for evaluate: a corpus, or a table.")
@LABEL_COLUMN
@MAP
@AMONG
@BY
@click.option("--audio", type=click.Path(path_type=Path), metavar="DIR", help="Where names start: players link there.")
@click.option("--embed-audio", "embed", type=click.IntRange(min=1), metavar="N", help="Put N recordings into the page.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
def report(out: Path, label_map: str | None, among: str | None, overwrite: bool, **options: Any) -> int:
    """Show PREDICTIONS, the table or folder of a `run`, in one HTML file that opens offline.

    It has the shares of labels, scores, levels, bandwidths, failures by reason, a timeline of each recording that was
    scored in windows, and a table of all recordings to sort, search and hear. With labels, the confusion matrix, the
    reliability of scores, and figures by --by. With SECOND, another table of the same recordings, how the two differ,
    by McNemar's test.

    --audio DIR makes players that link to the recordings, relative to the page: move both together. --embed-audio puts
    N recordings, the surest and least sure of each label, into the page, up to 12 MiB.
    """
    if (label_map or among or options["by"]) and not (options["labels"] or options["label_column"]):
        raise click.UsageError("--map, --among and --by are about labels: give --labels or --label-column, too.")
    if options["embed"] and not options["audio"]:
        raise click.UsageError("--embed-audio takes recordings from a folder: give --audio DIR, too.")
    from ser_batch.evaluation.evaluate import Question
    from ser_batch.evaluation.label_map import parse_labels, parse_map

    try:
        from ser_batch.report.page import Asked, write_report
    except ImportError as error:
        raise InputError("the report needs Vega-Altair", got=error, remedy="pip install 'ser-batch[report]'") from error
    said, corpora = parse_map(label_map or "")
    labels, column, by = options["labels"], options["label_column"], options["by"]
    question = Question(labels, column, said, corpora, parse_labels(among), by=by) if labels or column else None
    asked = Asked(options["predictions"], options["second"], question, options["audio"], options["embed"] or 0)
    size = write_report(asked, out, overwrite=overwrite)
    click.echo(f"{out}: {size / 2**20:.1f} MiB")
    return 0
