"""Experiments from start to JSON: a protocol, Table IV, Table V, an ablation, or all of them and one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from ser_batch.files import write_json
from training import runs, stages
from training.config import BranchOfRecipe, RunConfig, load_config
from training.data.corpora import Corpora
from training.data.corpus import Corpus
from training.reproduction.loco import leave_one_out, trust
from training.reproduction.page import draw, write_page
from training.reproduction.predictions import load_predictions, table_v
from training.reproduction.protocols import Protocol, Setting, plan, run_protocol
from training.reproduction.results import Kind, describe, load, save
from training.reproduction.studies import ablate, plan_depths, unfreeze
from training.runtime import Runtime


def configure(
    recipe: str, backbone: str | None = None, context_epochs: int | None = None, spectrogram_epochs: int | None = None
) -> RunConfig:
    """A recipe with another backbone or with fewer epochs; results name whatever differs from the paper.

    A schedule that spans the stage, as the context branch's cosine does, spans the fewer epochs.
    """
    config = load_config(recipe)
    if backbone:
        config = replace(config, context=replace(config.context, backbone=backbone))
    if context_epochs is not None:
        config = replace(config, context_stage=replace(config.context_stage, epochs=context_epochs))
    if spectrogram_epochs is not None:
        config = replace(config, spectrogram_stage=replace(config.spectrogram_stage, epochs=spectrogram_epochs))
    return config


def measure_protocol(
    setting: Setting,
    protocol: Protocol,
    seeds: Sequence[int],
    only: BranchOfRecipe | None = None,
) -> Path | None:
    """Run a protocol in `out` and write its result; with `only`, train that branch of each run and stop."""
    started = time.perf_counter()
    found = run_protocol(setting, protocol, seeds, only)
    if only:
        return None
    trained = [stage for run in found["runs"].values() for stage in run["stages"].values()]
    return _write(setting, "protocol", replace(setting.config, protocol=protocol), found, started, trained)


def measure_unfreezing(setting: Setting, layers: Sequence[int]) -> Path:
    """Table IV in `out`, written as a result."""
    started = time.perf_counter()
    found = unfreeze(setting, layers)
    trained = [run["stage"] for run in found["runs"].values()]
    return _write(setting, "unfreezing", setting.config, found, started, trained)


def measure_ablation(
    setting: Setting,
    protocol: Protocol,
    seeds: Sequence[int],
    variants: Path | None,
    branch: BranchOfRecipe = "context",
) -> Path:
    """Every variant of a branch in `out`, written as a result."""
    started, config = time.perf_counter(), replace(setting.config, protocol=protocol)
    found = ablate(replace(setting, config=config), protocol, seeds, variants, branch)
    trained = [run["stage"] for run in found["runs"].values()]
    kind: Kind = "ablation" if branch == "context" else "spectrogram-ablation"
    return _write(setting, kind, config, found, started, trained)


def measure_loco(run: Path, corpora: Corpora, results: Path, command: str) -> Path:
    """A finished run on corpora that it never heard, written as a result; trains nothing.

    What a bundle of the run may state of that goes to the run's own folder.
    """
    started = time.perf_counter()
    found, config = leave_one_out(run, corpora), load_config(run / "config.json")
    write_json(run / runs.TRUST, trust(found))
    return save(describe("loco", config, found, command, time.perf_counter() - started), results)


def measure_fusion(run: Path, results: Path, command: str) -> Path:
    """Table V of a finished run, written as a result; trains no branch."""
    started, predictions = time.perf_counter(), load_predictions(run)
    found = table_v(predictions)
    return save(describe("fusion", predictions.config, found, command, time.perf_counter() - started), results)


def train_out_of_fold(run: Path, corpus: Corpus, runtime: Runtime | None = None) -> None:
    """Train a run's branches once per fold, so that Table V can fit fusions on out-of-fold probabilities."""
    if not (run / "config.json").is_file():
        raise TrainingError(f"{run} is not a run", got="no config.json", expected="a folder of ser-train")
    stages.out_of_fold(runs.begin(load_config(run / "config.json"), corpus, run, runtime))


def reproduce(
    setting: Setting, seeds: Sequence[int], layers: Sequence[int], protocols: Sequence[Protocol], folds: bool
) -> Path:
    """Everything: the paper's split by seed, Table V of the first seed, Table IV, other protocols, figures, one page.

    The other protocols are run with the first seed. With `folds`, Table V has out-of-fold rows, at the price of
    training both branches once per fold. Finished parts are read, killed ones go on.
    """
    for protocol in ("paper", *protocols):  # refuse what does not fit before hours of what does
        plan(setting.config, protocol, seeds, setting.corpus)
    if layers:
        plan_depths(setting.config, layers, len(setting.corpus.labels))
    paper = setting.out / "paper"
    measure_protocol(replace(setting, out=paper), "paper", seeds)
    first = paper / f"seed{seeds[0]}"
    if folds:
        train_out_of_fold(first, setting.corpus, setting.runtime)
    measure_fusion(first, setting.results, setting.command)
    if layers:
        measure_unfreezing(replace(setting, out=setting.out / "unfreezing"), layers)
    for protocol in protocols:
        measure_protocol(replace(setting, out=setting.out / protocol), protocol, seeds[:1])
    figures = draw(load(setting.results), setting.out / "figures")
    return write_page(setting.out, setting.results, figures)


def _write(
    setting: Setting, kind: Kind, config: RunConfig, found: dict[str, Any], started: float, stages: list[dict[str, Any]]
) -> Path:
    """Save a result; its seconds are this command's, or those of its stages where they were trained before."""
    seconds = max(time.perf_counter() - started, sum(stage["seconds"] for stage in stages))
    results = found | {"corpus": setting.corpus.describe()}
    return save(describe(kind, config, results, setting.command, seconds), setting.results)
