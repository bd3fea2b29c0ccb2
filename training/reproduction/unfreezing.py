"""Table IV: the context branch trained with its top k Transformer layers unfrozen, k by k.

Source: paper, section IV-D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from training import runs
from training.config import RunConfig
from training.data.corpus import Corpus
from training.loop import Progress
from training.material import prepare
from training.reproduction.context_alone import measure_context


def unfreeze(
    config: RunConfig,
    layers: Sequence[int],
    corpus: Corpus,
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train and test the context branch with each number of unfrozen layers, in `folder`/layers<k>.

    Finished depths are read, killed ones go on. Returns {"depth": layers of the backbone, "runs": {name: figures}}.
    Raises TrainingError before any training when data, split or a number of layers does not fit.
    """
    planned, depth = plan(config, layers, len(corpus.labels))
    found = {}
    for k, settings in planned.items():
        place = folder / f"layers{k:02}"
        material = prepare(settings, corpus, place, device=device, compiled=compiled, progress=progress, cache=cache)
        found[place.name] = {"layers": k, "seed": config.seed, **measure_context(material)}
    return {"depth": depth, "labels": list(corpus.labels), "runs": found}


def plan(config: RunConfig, layers: Sequence[int], classes: int) -> tuple[dict[int, RunConfig], int]:
    """Each number of unfrozen layers → its configuration, and how many layers the backbone has."""
    if not layers or len(set(layers)) != len(layers) or min(layers) < 0:
        raise TrainingError("unfreezing needs numbers of layers", got=list(layers), expected="different ones from 0")
    planned = {k: replace(config, context=replace(config.context, unfrozen_layers=k)) for k in sorted(layers)}
    deepest = runs.build_branches(planned[max(layers)], classes)[config.context.name]
    return planned, deepest.depth
