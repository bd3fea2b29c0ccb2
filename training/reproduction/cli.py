"""`ser-train`'s experiments: whole protocols, Tables IV and V, ablations, and all of them on one page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.options import FOLDER, NUMBERS, PATH, PROTOCOLS, label_names

if TYPE_CHECKING:
    from training.reproduction.experiments import Setting


def trains(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that trains an experiment."""
    options = [
        click.option("--recipe", default="paper", show_default=True, help="A name or a .toml file."),
        click.option("--data", required=True, type=PATH, help="Folder of the RAVDESS speech clips, or a manifest."),
        click.option("--labels", help="Order of a manifest's classes, such as a,b,c.  [default: sorted]"),
        click.option("--out", required=True, type=FOLDER, help="Folder of the runs; given again, the command goes on."),
        click.option("--backbone", help="Folder or hub name of the speech encoder.  [default: the recipe's]"),
        click.option("--results", type=FOLDER, help="Folder of the JSON.  [default: training/results]"),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N."),
        click.option("--compile", "compiled", is_flag=True, help="torch.compile the branches."),
        click.option(
            "--cache", type=FOLDER, help="Folder of features that several runs share.  [default: each its own]"
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


context_epochs = click.option("--context-epochs", type=click.IntRange(1), help="Cap, told in the results.")
spectrogram_epochs = click.option("--spectrogram-epochs", type=click.IntRange(1), help="Cap, told in the results.")


@click.command()
@click.argument("name", type=PROTOCOLS)
@trains
@click.option("--seeds", type=NUMBERS, default="0", show_default=True, help="Such as 0,1,2 or 0-4.")
@context_epochs
@spectrogram_epochs
@click.option("--only", type=click.Choice(["context", "spectrogram"]), help="Train one branch of each run and stop.")
def protocol(
    name: str, seeds: list[int], context_epochs: int | None, spectrogram_epochs: int | None, only: str, **given: Any
) -> None:
    """Train and test every split of a protocol with every seed; write the result as JSON.

    paper: one random split a seed. emobox: six speaker-independent folds of RAVDESS. sentence: one sentence held
    out after the other. given: the parts that a manifest states.
    """
    from training.reproduction.experiments import measure_protocol

    path = measure_protocol(_setting(given, context_epochs, spectrogram_epochs), name, seeds, only)
    if path:
        click.echo(path)


@click.command()
@trains
@click.option("--layers", type=NUMBERS, default="0-6", show_default=True, help="Unfrozen layers, such as 1,3,5,9.")
@click.option("--epochs", type=click.IntRange(1), help="Cap of each depth's epochs, told in the results.")
def unfreeze(layers: list[int], epochs: int | None, **given: Any) -> None:
    """Table IV: train the context branch with each number of unfrozen layers; write the result as JSON."""
    from training.reproduction.experiments import measure_unfreezing

    click.echo(measure_unfreezing(_setting(given, epochs, None), layers))


@click.command()
@trains
@click.option("--protocol", "name", type=PROTOCOLS, default="paper", show_default=True)
@click.option("--seeds", type=NUMBERS, default="0-4", show_default=True, help="Such as 0,1,2 or 0-4.")
@click.option("--variants", type=PATH, help="TOML file, a table of changed fields a variant.  [default: the recipe's]")
def ablate(name: str, seeds: list[int], variants: Path | None, **given: Any) -> None:
    """What each part of a recipe's context branch is worth: change one at a time; write the result as JSON."""
    from training.reproduction.experiments import measure_ablation

    click.echo(measure_ablation(_setting(given, None, None), name, seeds, variants))


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--results", type=FOLDER, help="Folder of the JSON.  [default: training/results]")
def fusion(run_folder: Path, results: Path | None) -> None:
    """Table V from a finished run's probabilities, without training a branch; write the result as JSON."""
    from training.predictions import load_predictions
    from training.reproduction.experiments import measure_fusion
    from training.reproduction.results import RESULTS

    _committed_or_named(load_predictions(run_folder).split["corpus"], results)
    click.echo(measure_fusion(run_folder, results or RESULTS, "ser-train fusion RUN"))


@click.command("out-of-fold")
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--data", required=True, type=PATH, help="What the run was given.")
@click.option("--labels", help="As the run was given.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the branches.")
@click.option("--cache", type=FOLDER, help="As the run was given.")
def out_of_fold(
    run_folder: Path, data: Path, labels: str | None, device: str, compiled: bool, cache: Path | None
) -> None:
    """Train a run's branches once a fold of its training clips, so that Table V can fit fusions on them."""
    from training.data.corpora import load_corpus
    from training.progress import print_epoch
    from training.reproduction.experiments import train_out_of_fold

    how = {"device": device, "compiled": compiled, "progress": print_epoch, "cache": cache}
    train_out_of_fold(run_folder, load_corpus(data, label_names(labels)), how)


@click.command()
@trains
@click.option("--seeds", type=NUMBERS, default="0-4", show_default=True, help="Of the paper's protocol.")
@click.option("--layers", type=NUMBERS, default="1,3,5,9", show_default=True, help="Of Table IV.")
@click.option("--protocols", type=PROTOCOLS, multiple=True, default=["emobox", "sentence"], show_default=True)
@click.option("--out-of-fold", "folds", is_flag=True, help="Also fit fusions on out-of-fold probabilities.")
@context_epochs
@spectrogram_epochs
def reproduce(
    seeds: list[int],
    layers: list[int],
    protocols: tuple[str, ...],
    folds: bool,
    context_epochs: int | None,
    spectrogram_epochs: int | None,
    **given: Any,
) -> None:
    """Tables III, IV and V, the figures and every protocol, on one page: paper beside measured."""
    from training.data.ravdess import NAME as RAVDESS
    from training.reproduction.experiments import reproduce as reproduce_all

    others = [name for name in dict.fromkeys(protocols) if name != "paper"]
    setting = _setting(given, context_epochs, spectrogram_epochs)
    if setting.corpus.name != RAVDESS:
        raise click.UsageError("the paper's tables are of RAVDESS; protocol, unfreeze and ablate take other corpora.")
    click.echo(reproduce_all(setting, seeds, layers, others, folds))


def _committed_or_named(corpus: str, results: Path | None) -> None:
    from training.data.ravdess import NAME as RAVDESS

    if corpus != RAVDESS and results is None:
        raise click.UsageError("--results: the committed ones are of RAVDESS; name a folder for this corpus.")


def _setting(given: dict[str, Any], context: int | None, spectrogram: int | None) -> Setting:
    """What the shared options of an experiment say; the command is told without this machine's paths."""
    from training.data.corpora import load_corpus
    from training.data.manifest import states_split
    from training.memory import keep_freed_memory
    from training.progress import print_epoch
    from training.reproduction.experiments import Setting, configure
    from training.reproduction.results import RESULTS, backbone_name

    keep_freed_memory()
    config = configure(given["recipe"], given["backbone"], context, spectrogram)
    corpus = load_corpus(given["data"], label_names(given["labels"]))
    _committed_or_named(corpus.name, given["results"])
    if states_split(corpus):
        config = replace(config, protocol="given")
    shown = {
        str(given["data"]): corpus.name.upper(),
        str(given["out"]): "RUNS",
        given["backbone"]: backbone_name(config),
    }
    shown |= {str(given["results"]): "RESULTS", str(given["cache"]): "CACHE"}
    command = shlex.join(["ser-train", *(shown.get(argument, argument) for argument in sys.argv[1:])])
    return Setting(
        config=config,
        corpus=corpus,
        out=given["out"],
        results=given["results"] or RESULTS,
        command=command,
        device=given["device"],
        compiled=given["compiled"],
        progress=print_epoch,
        cache=given["cache"],
    )
