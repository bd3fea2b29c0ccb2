"""Ablations: the context branch with one part of its recipe changed at a time, over the same splits and seeds.

The variants of a recipe are a TOML file beside it (configs/ablations/): a table a variant, with the fields that it
changes. The whole recipe is the first variant, and every other one is told by its difference from it, split by split.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from training.config import RunConfig, to_dict
from training.configfile import RECIPES, from_dict
from training.data.corpus import Corpus
from training.material import prepare
from training.reproduction.context_alone import measure_context
from training.reproduction.protocols import Protocol
from training.reproduction.protocols import plan as plan_protocol
from training.reproduction.results import differences

WHOLE = "the whole recipe"
REFIT = "with refit"
"""The variant of a recipe with `refit`, the others being without: only then do validation clips compare them."""


def load_variants(config: RunConfig, path: Path | None = None) -> dict[str, RunConfig]:
    """Variant → its configuration, the whole recipe first; of `path`, or of the file named after the recipe.

    All are without `refit`, so that validation clips compare them; a recipe that has it is one more variant.

    Raises TrainingError for a file that cannot be read, a field or value that does not exist, or a change of nothing.
    """
    path = path or RECIPES / "ablations" / f"{config.recipe}.toml"
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"the variants {path} cannot be read", got=error, expected="a TOML file") from error
    whole, config = config, replace(config, refit=False)
    variants = {WHOLE: config}
    for name, changed in raw.items():
        if not isinstance(changed, dict):
            raise TrainingError(f"{path.name}: {name} is not a table of changed fields", got=repr(changed))
        variants[name] = from_dict(RunConfig, _merged(to_dict(config), changed), where=f"{path.name}: {name}")
        if variants[name] == config:
            raise TrainingError(f"{path.name}: {name} changes nothing", got=changed)
    return variants if whole == config else {**variants, REFIT: whole}


def ablate(
    config: RunConfig,
    protocol: Protocol,
    seeds: Sequence[int],
    corpus: Corpus,
    folder: Path,
    *,
    variants: Path | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Train and test the context branch of every variant with every split and seed, in `folder`/<variant>/<run>.

    Finished ones are read, killed ones go on; `how` are the keywords of `training.material.prepare`.

    Returns {"variants": {variant: field → [of the whole recipe, here]}, "runs": {"<variant>/<run>": {variant, seed,
    fold, stage, validation and test figures}}}.
    Raises TrainingError before any training when data, splits, seeds or variants do not fit.
    """
    known = load_variants(config, variants)
    planned = {
        (name, run): settings
        for name, variant in known.items()
        for run, (settings, _) in plan_protocol(variant, protocol, seeds, corpus).items()
    }
    found = {}
    for (name, run), settings in planned.items():
        material = prepare(settings, corpus, folder / _folder(name) / run, **how)
        about = {"variant": name, "seed": settings.seed, "fold": settings.fold}
        found[f"{name}/{run}"] = about | measure_context(material)
    whole = known[WHOLE]
    told = {name: differences(whole, variant) for name, variant in known.items() if variant != whole}
    return {"labels": list(corpus.labels), "variants": told, "runs": found}


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _merged(whole: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(whole[k], v) if isinstance(v, dict) and k in whole else v for k, v in changed.items()}
    return whole | both
