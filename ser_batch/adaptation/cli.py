"""`ser-batch adapt`."""

from __future__ import annotations

from typing import Any

import click

from ser_batch.evaluation.cli import AMONG, LABEL_COLUMN


@click.command()
@click.argument("predictions", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="adapted.parquet, .csv, .jsonl or .xlsx.")
@click.option("--shares", metavar="A=0.7,…|equal|labels|FILE", help="How common the labels are in the archive.")
@AMONG
@click.option(
    "--decide",
    type=click.Choice(["equal", "stated"]),
    default="equal",
    show_default=True,
    help="By equal shares (finds rare labels: UA) or by those stated (most answers right: accuracy).",
)
@click.option("--by", metavar="COLUMN", help="A bias for each value of a column, such as the speaker.")
@click.option(
    "--min-rows",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Groups with fewer scored rows take the archive's bias.",
)
@click.option("--labels", metavar="FILE", help="Table of a few labelled recordings: temperature and bias from them.")
@LABEL_COLUMN
@click.option("--map", "label_map", metavar="A=B,…", help="What labels mean, as for evaluate: exc=happy; or a corpus.")
@click.option("--speaker", metavar="COLUMN", help="Who is kept apart in cross-validation.  [speaker, if there is one]")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
def adapt(predictions: str, out: str, label_map: str | None, overwrite: bool, **options: Any) -> int:
    """Fit the answers of PREDICTIONS, the table or folder of a `run`, to its archive, and write them to --out.

    --shares finds the bias under which the mean probability of the archive equals the shares that you state: labels not
    named share the rest equally, calm=0 says that there is none, `labels` counts them among the labelled rows. It
    assumes that the shares are true, of the rows and with --by of each group alike. Where they are not, it hurts: do
    not say `equal` of an archive that is mostly neutral, nor group by speakers who have one emotion each.

    --among names the labels that can occur, as for `evaluate`: alone it rescales their probabilities to sum to 1; with
    --shares, the share of every other label is 0.

    --labels fits a temperature and a bias on a few dozen labelled rows drawn at random (20 or more; 60 are better),
    shrunk towards none. What cross-validation does not show to help is not used, and the summary says so.

    In --out, label, score and p_<label> are the adapted answer, which `evaluate` measures beside the model's own: that
    is kept as unadapted_label, unadapted_score and unadapted_p_<label>. Silent, short and failed rows stay as they are.
    docs/archive.md has measured gains and losses.
    """
    from ser_batch.adaptation.adapt import Adaptation
    from ser_batch.adaptation.table import adapt_table, format_adapted
    from ser_batch.evaluation.label_map import parse_map

    said, corpora = parse_map(label_map or "")
    asked = Adaptation(label_map=said, corpora=corpora, **options)
    click.echo(format_adapted(adapt_table(predictions, out, asked, overwrite=overwrite), out))
    click.echo(f"\nnext: ser-batch evaluate {out} --labels FILE, where you have labels: adapted beside unadapted")
    return 0
