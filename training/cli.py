"""`ser-train`: each command parses, calls one library function and prints."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from ser_batch.errors import SerError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ser-batch")
def cli() -> None:
    """Staged training of the dual-branch fusion model."""


@cli.command()
@click.argument("recipe", default="paper")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the RAVDESS speech clips.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--backbone", help="Folder or hub name of the speech encoder.  [default: the recipe's]")
@click.option("--seed", type=int, help="Seed of split, augmentation, weights and order.  [default: the recipe's]")
@click.option("--protocol", help="paper, emobox, sentence or given.  [default: the recipe's]")
@click.option("--fold", type=int, help="Which of the protocol's splits, from 0.  [default: the recipe's]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the branches; pays off in long stages.")
@click.option("--only", type=click.Choice(["context", "spectrogram"]), help="Train one branch and stop.")
def run(
    recipe: str,
    data: Path,
    out: Path,
    backbone: str | None,
    seed: int | None,
    protocol: str | None,
    fold: int | None,
    device: str,
    compiled: bool,
    only: str | None,
) -> None:
    """Train, fuse and test one run of RECIPE: a name ("paper", "compact") or a .toml file.

    A run that was killed goes on where it was when the same command is given again.
    """
    from training import ravdess
    from training.configfile import load_config
    from training.memory import keep_freed_memory
    from training.progress import print_epoch, print_result
    from training.stages import train

    keep_freed_memory()
    given = {"seed": seed, "protocol": protocol, "fold": fold}
    config = load_config(recipe, **{key: value for key, value in given.items() if value is not None})
    if backbone:
        config = replace(config, context=replace(config.context, backbone=backbone))
    result = train(config, ravdess.load(data), out, device=device, compiled=compiled, progress=print_epoch, only=only)
    if result:
        print_result(result["test"])


def main() -> None:
    """Entry point: a SerError is one clear line and exit code 2."""
    try:
        cli()
    except SerError as error:
        click.echo(f"ser-train: {error}", err=True)
        sys.exit(2)
