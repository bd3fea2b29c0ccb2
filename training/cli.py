"""`ser-train`: each command parses, calls one library function and prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ser_batch import command_line
from training.options import (
    FOLDER,
    PATH,
    PROTOCOLS,
    corpus_options,
    print_diagnostics,
    print_epoch,
    print_result,
    results_option,
    runtime_of,
    runtime_options,
)
from training.reproduction.cli import ablate, fusion, loco, out_of_fold, protocol, reproduce, unfreeze
from training.robustness.cli import robustness


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Staged training of the dual-branch fusion model."""


@cli.command()
@click.argument("recipe", default="paper")
@corpus_options(required=False)
@click.option("--corpora", type=PATH, help="TOML file that names several corpora, instead of --data.")
@click.option("--train-on", multiple=True, help="Corpus of that file to train on.  [default: all of role train]")
@click.option("--out", required=True, type=FOLDER, help="Folder of the run.")
@click.option("--backbone", help="Folder or hub name of the speech encoder.  [default: the recipe's]")
@click.option("--seed", type=int, help="Seed of split, augmentation, weights and order.  [default: the recipe's]")
@click.option(
    "--protocol",
    type=PROTOCOLS,
    help="How to split.  [default: given if a table has a split column, speakers if it names them, or the recipe's]",
)
@click.option("--fold", type=int, help="Which of the protocol's splits, from 0.  [default: the recipe's]")
@runtime_options
@click.option("--only", type=click.Choice(["context", "spectrogram"]), help="Train one branch and stop.")
def run(
    recipe: str, out: Path, labels: str | None, corpora: Path | None, train_on: tuple[str, ...], **given: Any
) -> None:
    """Train, fuse and test one run of RECIPE: a name ("paper", "compact") or a .toml file.

    If a run was killed, give the same command again: it goes on where it was.
    """
    from training.api import train
    from training.files import read_json

    order = [label.strip() for label in labels.split(",")] if labels else None
    given |= {"corpora": corpora, "train_on": train_on}
    result = train(recipe, out=out, labels=order, progress=print_epoch, **given)
    print_diagnostics(out, result)
    if result:
        print_result(result["test"], read_json(out / "split.json")["name"])
        # Of a table of one's own nobody but its owner knows the terms, which a bundle has to state.
        licence = "" if corpora or Path(given["data"]).is_dir() else ' --licence "TERMS"'
        click.echo(f"next: ser-export onnx {out} --out my-bundle{licence}")


@cli.command()
@click.argument("recipe", default="compact")
@click.option("--corpora", "file", required=True, type=PATH, help="TOML file that names the corpora.")
@click.option("--out", required=True, type=FOLDER, help="Folder of the distillation.")
@click.option("--teacher", help="Folder or hub name of the frozen encoder.  [default: the recipe's]")
@click.option("--seed", type=int, help="Seed of weights, order and augmentation.  [default: the recipe's]")
@runtime_options
def distill(recipe: str, file: Path, out: Path, teacher: str | None, seed: int | None, **given: Any) -> None:
    """Teach a compact encoder the frames of a larger, frozen one, on every clip that may be trained on.

    OUT/encoder is then a backbone for `ser-train run --backbone`. If it was killed, give the same command again.
    """
    from training.data.corpora import load_corpora
    from training.distillation import distill, load_distillation

    chosen = {"teacher": teacher, "seed": seed}
    config = load_distillation(recipe, **{name: value for name, value in chosen.items() if value is not None})
    result = distill(config, load_corpora(file), out, runtime_of(given))
    click.echo(f"{out / 'encoder'}: held-out loss {result['loss']:.3f}, cosine {result['cosine']:.3f}")


@cli.command()
@click.option("--page", type=PATH, required=True, help="Page to renew, such as docs/reproduction.md.")
@results_option
@click.option("--figures", type=FOLDER, help="Also draw the figures there.")
@click.option("--check", is_flag=True, help="Write nothing; fail if the page is not what the results say.")
def tables(page: Path, results: Path, figures: Path | None, check: bool) -> None:
    """Renew the generated regions of a page from results; a page that is not there is made, with every table."""
    from training.reproduction.page import draw, is_current, renew
    from training.reproduction.results import load

    if check:
        if not is_current(page, results):
            remedy = f"run ser-train tables --page {page} --results {results}"
            raise click.ClickException(f"{page} is not what the results in {results} say; {remedy}")
        return
    click.echo(f"{page}: {'renewed' if renew(page, results) else 'unchanged'}")
    if figures:
        draw(load(results), figures)


for _command in (protocol, loco, unfreeze, ablate, fusion, out_of_fold, reproduce, robustness):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or 2 with one line on what is wrong."""
    return command_line.run(cli, "ser-train", arguments, interrupted="give the same command again to go on")
