"""`ser-train`: each command parses, calls one library function and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from ser_batch import command_line
from training.options import FOLDER, PATH, label_names
from training.reproduction.cli import ablate, fusion, out_of_fold, protocol, reproduce, unfreeze


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Staged training of the dual-branch fusion model."""


@cli.command()
@click.argument("recipe", default="paper")
@click.option("--data", required=True, type=PATH, help="RAVDESS folder, or a .csv or .parquet manifest.")
@click.option("--out", required=True, type=FOLDER, help="Folder of the run.")
@click.option("--labels", help="Order of a manifest's classes, such as a,b,c.  [default: sorted]")
@click.option("--backbone", help="Folder or hub name of the speech encoder.  [default: the recipe's]")
@click.option("--seed", type=int, help="Seed of split, augmentation, weights and order.  [default: the recipe's]")
@click.option(
    "--protocol", help="paper, emobox, sentence or given.  [default: given where a manifest states it, or the recipe's]"
)
@click.option("--fold", type=int, help="Which of the protocol's splits, from 0.  [default: the recipe's]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the branches; pays off in long stages.")
@click.option("--only", type=click.Choice(["context", "spectrogram"]), help="Train one branch and stop.")
@click.option("--cache", type=FOLDER, help="Folder of features that several runs share.")
def run(
    recipe: str,
    data: Path,
    out: Path,
    labels: str | None,
    backbone: str | None,
    seed: int | None,
    protocol: str | None,
    fold: int | None,
    device: str,
    compiled: bool,
    only: str | None,
    cache: Path | None,
) -> None:
    """Train, fuse and test one run of RECIPE: a name ("paper", "compact") or a .toml file.

    A run that was killed goes on where it was when the same command is given again.
    """
    from training.configfile import load_config
    from training.data.corpora import load_corpus
    from training.data.manifest import states_split
    from training.memory import keep_freed_memory
    from training.progress import print_diagnostics, print_epoch, print_result
    from training.stages import train

    keep_freed_memory()
    corpus = load_corpus(data, label_names(labels))
    protocol = protocol or ("given" if states_split(corpus) else None)
    given = {"seed": seed, "protocol": protocol, "fold": fold}
    config = load_config(recipe, **{key: value for key, value in given.items() if value is not None})
    if backbone:
        config = replace(config, context=replace(config.context, backbone=backbone))
    how = {"device": device, "compiled": compiled, "progress": print_epoch, "cache": cache}
    result = train(config, corpus, out, only=only, **how)
    print_diagnostics(out)
    if result:
        print_result(result["test"])


@cli.command()
@click.option("--page", type=PATH, help="Page to renew.  [default: docs/reproduction.md]")
@click.option("--results", type=FOLDER, help="Folder of the JSON.  [default: training/results]")
@click.option("--figures", type=FOLDER, help="Also draw the figures there.")
@click.option("--check", is_flag=True, help="Write nothing; exit 2 if the page is not what the results say.")
def tables(page: Path | None, results: Path | None, figures: Path | None, check: bool) -> None:
    """Renew the generated regions of docs/reproduction.md from committed results."""
    from training.reproduction.page import PAGE, draw, is_current, renew
    from training.reproduction.results import RESULTS, load

    page, results = page or PAGE, results or RESULTS
    if check:
        if not is_current(page, results):
            raise click.ClickException(f"{page} is not what {results} says; run ser-train tables")
        return
    click.echo(f"{page}: {'renewed' if renew(page, results) else 'unchanged'}")
    if figures:
        draw(load(results), figures)


for _command in (protocol, unfreeze, ablate, fusion, out_of_fold, reproduce):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or 2 with one line on what is wrong."""
    return command_line.run(cli, "ser-train", arguments, interrupted="give the same command again to go on")
