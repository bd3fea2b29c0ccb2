"""`ser-train`'s experiments: whole protocols, Tables IV and V, ablations, and all of them on one page."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ser_batch.text import aligned, shareable_command
from training.options import (
    FOLDER,
    NUMBERS,
    PATH,
    PROTOCOLS,
    Command,
    corpus_of,
    corpus_options,
    results_option,
    runtime_of,
    runtime_options,
)

if TYPE_CHECKING:
    from training.reproduction.protocols import Setting


def experiment_options(command: Command) -> Command:
    """The options of every command that trains an experiment."""
    options = [
        click.option("--recipe", default="paper", show_default=True, help="A name or a .toml file."),
        corpus_options,
        click.option("--out", required=True, type=FOLDER, help="Folder of the runs; given again, the command goes on."),
        click.option("--backbone", help="Folder or hub name of the speech encoder.  [default: the recipe's]"),
        results_option,
        runtime_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


context_epochs = click.option("--context-epochs", type=click.IntRange(1), help="Cap, named in the results.")
spectrogram_epochs = click.option("--spectrogram-epochs", type=click.IntRange(1), help="Cap, named in the results.")


@click.command()
@click.argument("name", type=PROTOCOLS)
@experiment_options
@click.option("--seeds", type=NUMBERS, default="0", show_default=True, help="Such as 0,1,2 or 0-4.")
@context_epochs
@spectrogram_epochs
@click.option("--only", type=click.Choice(["context", "spectrogram"]), help="Train one branch of each run and stop.")
def protocol(name: Any, seeds: list[int], only: Any, **given: Any) -> None:
    """Train and test every split of a protocol with every seed; write the result as JSON.

    paper: one random split per seed. emobox: six speaker-independent folds of RAVDESS. sentence: one sentence held
    out after the other. speakers: a tenth of the speakers held out. given: the parts in a table's split column.
    """
    from training.reproduction.experiments import measure_protocol

    path = measure_protocol(_setting(given), name, seeds, only)
    if path:
        _written(path)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--corpora", "file", required=True, type=PATH, help="TOML file that names the corpora of the run.")
@results_option
def loco(run: Path, file: Path, results: Path) -> None:
    """Leave one corpus out: measure a finished RUN on each corpus as one that it never heard; write it as JSON.

    The run's fusion has to be fitted out of fold: its branches were trained without each corpus then. Corpora that
    it was not trained on meet the whole model. RUN/trust.json then says what `ser-export onnx` may state of RUN.
    """
    from training.data.corpora import load_corpora
    from training.reproduction.experiments import measure_loco

    command = _recorded({run: "RUN", file: "CORPORA", results: "RESULTS"})
    click.echo(measure_loco(run, load_corpora(file), results, command))


@click.command()
@experiment_options
@click.option("--layers", type=NUMBERS, default="0-6", show_default=True, help="Unfrozen layers, such as 1,3,5,9.")
@click.option(
    "--epochs", "context_epochs", type=click.IntRange(1), help="Cap of each depth's epochs, named in the results."
)
def unfreeze(layers: list[int], **given: Any) -> None:
    """Table IV: train the context branch with each number of unfrozen layers; write the result as JSON."""
    from training.reproduction.experiments import measure_unfreezing

    _written(measure_unfreezing(_setting(given), layers))


@click.command()
@experiment_options
@click.option("--protocol", "name", type=PROTOCOLS, default="paper", show_default=True, help="How to split.")
@click.option("--seeds", type=NUMBERS, default="0-4", show_default=True, help="Such as 0,1,2 or 0-4.")
@click.option(
    "--variants", type=PATH, help="TOML file, one table of changed fields per variant.  [default: the recipe's]"
)
@click.option(
    "--branch", type=click.Choice(["context", "spectrogram"]), default="context", show_default=True, help="Which one."
)
def ablate(name: Any, seeds: list[int], variants: Path | None, branch: Any, **given: Any) -> None:
    """What each part of a recipe's branch is worth: change one at a time; write the result as JSON."""
    from training.reproduction.experiments import measure_ablation

    _written(measure_ablation(_setting(given), name, seeds, variants, branch))


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@results_option
def fusion(run_folder: Path, results: Path) -> None:
    """Table V from a finished run's probabilities, without training a branch: print it; write the result as JSON."""
    from ser_batch.evaluation.statistics import Interval, percent
    from training.reproduction.experiments import measure_fusion

    found = measure_fusion(run_folder, results, _recorded({run_folder: "RUN", results: "RESULTS"}))
    rows = json.loads(found.read_text())["results"]["rows"]
    figures = [
        (percent(row["accuracy"], Interval(*row["accuracy_interval"])), f"{100 * row['ua']:.2f}") for row in rows
    ]
    named = [(f"{row['strategy']} ({row['fit_on']})" if row["fit_on"] else row["strategy"]) for row in rows]
    head = (f"test: {rows[0]['clips']} clips (fitted on)", "accuracy, Wilson", "UA")
    click.echo(aligned([head, *((name, *figure) for name, figure in zip(named, figures, strict=True))]))
    click.echo(found)


@click.command("out-of-fold")
@click.argument("run_folder", metavar="RUN", type=PATH)
@corpus_options
@runtime_options
def out_of_fold(run_folder: Path, **given: Any) -> None:
    """Train a run's branches once per fold of its training clips, so that Table V can fit fusions on them.

    Give --data, --labels and --cache as the run was given them.
    """
    from training.reproduction.experiments import train_out_of_fold

    train_out_of_fold(run_folder, corpus_of(given), runtime_of(given))


@click.command()
@experiment_options
@click.option("--seeds", type=NUMBERS, default="0-4", show_default=True, help="Of the paper's protocol.")
@click.option("--layers", type=NUMBERS, default="1,3,5,9", show_default=True, help="Of Table IV.")
@click.option(
    "--protocols",
    type=PROTOCOLS,
    multiple=True,
    default=["emobox", "sentence"],
    show_default=True,
    help="Others to measure; repeatable.",
)
@click.option("--out-of-fold", "folds", is_flag=True, help="Also fit fusions on out-of-fold probabilities.")
@context_epochs
@spectrogram_epochs
def reproduce(seeds: list[int], layers: list[int], protocols: tuple[Any, ...], folds: bool, **given: Any) -> None:
    """Tables III, IV and V, the figures and every protocol, on one page: paper beside measured."""
    from training.data.ravdess import NAME as RAVDESS
    from training.reproduction.experiments import reproduce as reproduce_all

    others = [name for name in dict.fromkeys(protocols) if name != "paper"]
    setting = _setting(given)
    if setting.corpus.name != RAVDESS:
        raise click.UsageError("the paper's tables are of RAVDESS; protocol, unfreeze and ablate take other corpora.")
    click.echo(reproduce_all(setting, seeds, layers, others, folds))


def _written(result: Path) -> None:
    """Say where a result is, and how to read it."""
    click.echo(result)
    click.echo(f"next: ser-train tables --page tables.md --results {result.parent}", err=True)


def _setting(given: dict[str, Any]) -> Setting:
    """What the shared options of an experiment say."""
    from training.data.table import own_protocol
    from training.reproduction.experiments import configure
    from training.reproduction.protocols import Setting
    from training.reproduction.results import backbone_name

    caps = given.get("context_epochs"), given.get("spectrogram_epochs")
    config, corpus = configure(given["recipe"], given["backbone"], *caps), corpus_of(given)
    if asked := own_protocol(corpus):
        config = replace(config, protocol=asked)
    names = {given["data"]: corpus.name.upper(), given["out"]: "RUNS", given["backbone"]: backbone_name(config)}
    command = _recorded(names | {given["results"]: "RESULTS", given["cache"]: "CACHE"})
    return Setting(config, corpus, given["out"], runtime_of(given), given["results"], command)


def _recorded(names: dict[Any, str]) -> str:
    """This command as results record it, without this machine's paths; a relative folder of results stays as given."""
    shown = {str(path): name for path, name in names.items()}
    shown |= {str(path): str(path) for path, name in names.items() if name == "RESULTS" and not path.is_absolute()}
    return shareable_command(["ser-train", *(shown.get(argument, argument) for argument in sys.argv[1:])])
