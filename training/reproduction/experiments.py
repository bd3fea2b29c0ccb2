"""Experiments from start to committed JSON: a protocol, Table IV, Table V, or all of them and one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ser_batch.errors import TrainingError
from training import stages
from training.config import RunConfig
from training.configfile import load_config
from training.data.corpus import Corpus
from training.loop import Progress
from training.material import prepare
from training.predictions import load_predictions
from training.reproduction.ablation import ablate
from training.reproduction.page import draw, write_page
from training.reproduction.protocols import Protocol, plan, run_protocol
from training.reproduction.results import Kind, describe, load, save
from training.reproduction.table_v import table_v
from training.reproduction.unfreezing import plan as plan_depths
from training.reproduction.unfreezing import unfreeze


@dataclass(frozen=True)
class Setting:
    """What every experiment of one command shares."""

    config: RunConfig
    corpus: Corpus
    out: Path
    """Folder of the runs."""
    results: Path
    """Folder of the JSON."""
    command: str
    """As it is told beside the results."""
    device: str = "cpu"
    compiled: bool = False
    progress: Progress | None = None
    cache: Path | None = None
    """Folder of cached features, shared by every run."""

    @property
    def how(self) -> dict[str, Any]:
        """The keywords of every function that trains."""
        return {"device": self.device, "compiled": self.compiled, "progress": self.progress, "cache": self.cache}


def configure(
    recipe: str, backbone: str | None = None, context_epochs: int | None = None, spectrogram_epochs: int | None = None
) -> RunConfig:
    """A recipe with another backbone or with fewer epochs; whatever differs from the paper is told by the results.

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
    only: Literal["context", "spectrogram"] | None = None,
) -> Path | None:
    """Run a protocol in `out` and write its result; with `only`, train that branch of each run and stop."""
    started = time.perf_counter()
    found = run_protocol(setting.config, protocol, seeds, setting.corpus, setting.out, only=only, **setting.how)
    if only:
        return None
    trained = sum(stage["seconds"] for run in found["runs"].values() for stage in run["stages"].values())
    return _write(setting, "protocol", replace(setting.config, protocol=protocol), found, started, trained)


def measure_unfreezing(setting: Setting, layers: Sequence[int]) -> Path:
    """Table IV in `out`, written as a result."""
    started = time.perf_counter()
    found = unfreeze(setting.config, layers, setting.corpus, setting.out, **setting.how)
    trained = sum(run["stage"]["seconds"] for run in found["runs"].values())
    return _write(setting, "unfreezing", setting.config, found, started, trained)


def measure_ablation(setting: Setting, protocol: Protocol, seeds: Sequence[int], variants: Path | None) -> Path:
    """Every variant of the context branch in `out`, written as a result."""
    started, config = time.perf_counter(), replace(setting.config, protocol=protocol)
    found = ablate(config, protocol, seeds, setting.corpus, setting.out, variants=variants, **setting.how)
    trained = sum(run["stage"]["seconds"] for run in found["runs"].values())
    return _write(setting, "ablation", config, found, started, trained)


def measure_fusion(run: Path, results: Path, command: str) -> Path:
    """Table V of a finished run, written as a result; trains no branch."""
    started, predictions = time.perf_counter(), load_predictions(run)
    found = table_v(predictions)
    return save(describe("fusion", predictions.config, found, command, time.perf_counter() - started), results)


def train_out_of_fold(run: Path, corpus: Corpus, how: Mapping[str, Any]) -> None:
    """Train a run's branches once a fold, so that Table V can fit fusions on out-of-fold probabilities."""
    if not (run / "config.json").is_file():
        raise TrainingError(f"{run} is not a run", got="no config.json", expected="a folder of ser-train")
    stages.out_of_fold(prepare(load_config(run / "config.json"), corpus, run, **how))


def reproduce(
    setting: Setting, seeds: Sequence[int], layers: Sequence[int], protocols: Sequence[Protocol], folds: bool
) -> Path:
    """Everything: the paper's split by seed, Table V of the first seed, Table IV, other protocols, figures, one page.

    The other protocols are run with the first seed. With `folds`, Table V has out-of-fold rows, at the price of
    training both branches once a fold. Finished parts are read, killed ones go on.
    """
    for protocol in ("paper", *protocols):  # refuse what does not fit before hours of what does
        plan(setting.config, protocol, seeds, setting.corpus)
    if layers:
        plan_depths(setting.config, layers, len(setting.corpus.labels))
    paper = setting.out / "paper"
    measure_protocol(replace(setting, out=paper), "paper", seeds)
    first = paper / f"seed{seeds[0]}"
    if folds:
        train_out_of_fold(first, setting.corpus, setting.how)
    measure_fusion(first, setting.results, setting.command)
    if layers:
        measure_unfreezing(replace(setting, out=setting.out / "unfreezing"), layers)
    for protocol in protocols:
        measure_protocol(replace(setting, out=setting.out / protocol), protocol, seeds[:1])
    figures = draw(load(setting.results), setting.out / "figures")
    return write_page(setting.out, setting.results, figures)


def _write(
    setting: Setting, kind: Kind, config: RunConfig, found: dict[str, Any], started: float, trained: float
) -> Path:
    """Save a result; its seconds are this command's, or the training's where that was done before."""
    seconds = max(time.perf_counter() - started, trained)
    results = found | {"corpus": setting.corpus.describe()}
    return save(describe(kind, config, results, setting.command, seconds), setting.results)
