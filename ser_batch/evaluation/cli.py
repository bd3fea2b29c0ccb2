"""`ser-batch evaluate`, and the options about labels that other commands share with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ser_batch.errors import OutputError

LABEL_COLUMN = click.option(
    "--label-column", metavar="NAME", help="Column of FILE, or without --labels of PREDICTIONS.  [label]"
)
MAP = click.option(
    "--map", "label_map", metavar="A=B,…", help="What labels mean: exc=happy,fru=; or a corpus: iemocap."
)
AMONG = click.option(
    "--among", metavar="A,B,…", help="Labels that count as answers, for a corpus that lacks the others."
)
BY = click.option(
    "--by", metavar="COLUMN", help="Figures for each value of a column (speaker), and an interval over five or more."
)


@click.command()
@click.argument("predictions", type=click.Path())
@click.argument("second", required=False, type=click.Path())
@click.option("--labels", metavar="CORPUS|FILE", help="A corpus whose names say the label (ravdess, …), or a table.")
@LABEL_COLUMN
@click.option("--root", type=click.Path(), metavar="DIR", help="Of the run, where FILE is segments of another tool.")
@MAP
@BY
@click.option("--split", type=click.Path(path_type=Path), help="A training run's split.json: measure one part of it.")
@click.option("--part", type=click.Choice(["train", "validation", "test"]), help="Which part.  [default: test]")
@AMONG
@click.option("--json", "json_out", type=click.Path(path_type=Path), help="Also write every figure to this file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --json file.")
def evaluate(
    predictions: str,
    second: str | None,
    label_map: str | None,
    among: str | None,
    json_out: Path | None,
    overwrite: bool,
    **options: Any,
) -> int:
    """Measure PREDICTIONS, the table or folder of a `run`, against the true labels.

    FILE is a table with a column path (or file, or id) and a column label. Paths are relative to the folder that was
    scored. Rows are matched by id where both have ids or stretches. Labels may be written in other case or in the words
    of common corpora (anger, happiness); --map says what others mean. Several may mean one, and a label of the model
    on the left is merged (calm=neutral). Labels without a meaning are left out and counted.

    Prints accuracy, UA, macro precision, recall and F1, calibration error and the confusion matrix of the fusion and of
    each branch, and how many rows are in none of them, and why.

    With SECOND, predictions of another model for the same recordings: the difference of both, with its interval, and
    McNemar's exact test. Either may be another tool's table: a column path and columns p_<label>; SECOND may state
    answers alone, in a column prediction or label.
    """
    if options["part"] and not options["split"]:
        raise click.UsageError("--part chooses a part of --split: give both.")
    if not options["labels"] and not options["label_column"]:
        raise click.UsageError("Say where the labels are: --labels CORPUS|FILE, or --label-column of PREDICTIONS.")
    if options["root"] and not options["labels"]:
        raise click.UsageError("--root is for the FILE of --labels: give that, too.")
    from ser_batch.evaluation.evaluate import Question, evaluate_predictions
    from ser_batch.evaluation.label_map import parse_labels, parse_map
    from ser_batch.evaluation.report import format_evaluation
    from ser_batch.files import write_json, writing

    if json_out and json_out.exists() and not overwrite:
        raise OutputError(f"{json_out} exists already", remedy="Choose another, or replace it: --overwrite.")
    said, corpora = parse_map(label_map or "")
    question = Question(
        labels=options["labels"],
        column=options["label_column"],
        label_map=said,
        corpora=corpora,
        only=parse_labels(among),
        split=options["split"],
        part=options["part"] or "test",
        by=options["by"],
        root=options["root"],
    )
    served = evaluate_predictions(predictions, question, second)
    if json_out:
        with writing(json_out):
            write_json(json_out, served.to_dict())
    click.echo(format_evaluation(served))
    return 0
