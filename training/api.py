"""What `ser-train run` does, as a function: a recipe and recordings to a finished run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from training.config import BranchOfRecipe, load_config
from training.data.corpora import load_corpora
from training.data.table import load_corpus, own_protocol
from training.runtime import Runtime, find_device, tune_cpu
from training.stages import train as train_stages


def train(
    recipe: str,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    corpora: str | os.PathLike[str] | None = None,
    train_on: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    backbone: str | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    device: str = "cpu",
    compile: bool = False,  # noqa: A002 — as the option is called
    cache: str | os.PathLike[str] | None = None,
    only: BranchOfRecipe | None = None,
    progress: Callable[[str, dict[str, float]], None] | None = None,
) -> dict[str, Any] | None:
    """Train, fuse and test one run; given again after a kill, it goes on where it was.

    It tells malloc to reuse large blocks, and the CPU to take denormal numbers for zero, for the whole process: a step
    is then a third faster.

    Args:
        recipe: a name ("paper", "compact") or a .toml file.
        data: folder of the RAVDESS speech clips, or a .csv or .parquet table with one row per recording.
        out: folder of the run.
        corpora: TOML file that names several corpora, instead of `data`.
        train_on: corpora of that file to train on, others being tested; none named: all of role "train".
        labels: order of a table's classes; None: sorted.
        backbone: folder or hub name of the speech encoder; None: the recipe's. `seed`, `protocol` and `fold` alike,
            but that a table with a column `split` has the protocol "given", one with all speakers "speakers".
        device: "cpu", "cuda" or "cuda:N".
        compile: torch.compile the branches.
        cache: folder of features that several runs share.
        only: train one branch and stop.
        progress: called after each epoch with the stage and its figures.

    Returns:
        part ("validation", "test") -> output (each branch, "fused") -> figures, as in result.json; None with `only`.

    Raises:
        TrainingError: recipe, data, split and folder do not fit together; before any training.
    """
    if (data is None) == (corpora is None):
        raise TrainingError(
            "a run trains on data or on corpora",
            got="both" if data else "neither",
            remedy="Name a corpus, --data FOLDER|TABLE, or a file of several, --corpora FILE.",
        )
    if (corpora is None and train_on) or (corpora is not None and labels is not None):
        raise TrainingError(
            "train_on is for corpora, and labels order the classes of a table", got=f"data {data}, corpora {corpora}"
        )
    if corpora is not None:
        corpus = load_corpora(Path(corpora)).for_training(train_on)
    else:
        corpus = load_corpus(Path(str(data)), None if labels is None else tuple(labels))
    overrides = {name: value for name, value in {"seed": seed, "fold": fold}.items() if value is not None}
    if asked := protocol or own_protocol(corpus):
        overrides["protocol"] = asked
    config = load_config(recipe, **overrides)
    if backbone:
        config = replace(config, context=replace(config.context, backbone=backbone))
    tune_cpu()
    runtime = Runtime(find_device(device), compile, progress, None if cache is None else Path(cache))
    return train_stages(config, corpus, Path(out), runtime, only=only)
