"""Studies of one branch alone: Table IV (unfrozen layers) and ablations, over the same splits and seeds.

Source: paper, section IV-D. The variants of an ablated recipe are a TOML file beside it for each branch
(configs/ablations/): one table per variant, with the fields that it changes. The whole recipe is the first variant,
and every other one is described by its difference from it, split by split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ser_batch.errors import TrainingError
from ser_batch.strict_json import decode
from training import runs
from training.config import RECIPES, BranchOfRecipe, RunConfig, read_toml, to_dict
from training.files import read_arrays, write_arrays
from training.reproduction.predictions import figures, stage_figures
from training.reproduction.protocols import Protocol, Setting, plan
from training.reproduction.results import differences
from training.runs import TrainingRun
from training.stages import branch_probabilities, train_context, train_spectrogram

PREDICTIONS = "{}_predictions.npz"
"""File in a run's folder, by "context" or "spectrogram"."""
WHOLE = "the whole recipe"
REFIT = "with refit"
"""The variant of a recipe with `refit`, the others being without: only then do validation clips compare them."""


def unfreeze(setting: Setting, layers: Sequence[int]) -> dict[str, Any]:
    """Train and test the context branch with each number of unfrozen layers, in `out`/layers<k>.

    Finished depths are read, killed ones go on. Returns {"depth": layers of the backbone, "runs": {name: figures}}.
    Raises TrainingError before any training when data, split or a number of layers does not fit.
    """
    planned, depth = plan_depths(setting.config, layers, len(setting.corpus.labels))
    found = {}
    for k, config in planned.items():
        folder = setting.out / f"layers{k:02}"
        run = runs.begin(config, setting.corpus, folder, setting.runtime)
        found[folder.name] = {"layers": k, "seed": config.seed, **measure_branch(run, "context")}
    return {"depth": depth, "labels": list(setting.corpus.labels), "runs": found}


def plan_depths(config: RunConfig, layers: Sequence[int], classes: int) -> tuple[dict[int, RunConfig], int]:
    """Each number of unfrozen layers → its configuration, and how many layers the backbone has."""
    if not layers or len(set(layers)) != len(layers) or min(layers) < 0:
        raise TrainingError("unfreezing needs numbers of layers", got=list(layers), expected="different ones from 0")
    planned = {k: replace(config, context=replace(config.context, unfrozen_layers=k)) for k in sorted(layers)}
    deepest = runs.build_branches(planned[max(layers)], classes)[config.context.name]
    return planned, deepest.depth


def ablate(
    setting: Setting,
    protocol: Protocol,
    seeds: Sequence[int],
    variants: Path | None = None,
    branch: BranchOfRecipe = "context",
) -> dict[str, Any]:
    """Train and test one branch of every variant with every split and seed, in `out`/<variant>/<run>.

    Finished ones are read, killed ones go on.

    Returns {"variants": {variant: field → [of the whole recipe, here]}, "runs": {"<variant>/<run>": {variant, seed,
    fold, stage, validation and test figures}}}.
    Raises TrainingError before any training when data, splits, seeds or variants do not fit.
    """
    known = load_variants(setting.config, variants, branch)
    planned = {
        (name, run): config
        for name, variant in known.items()
        for run, (config, _) in plan(variant, protocol, seeds, setting.corpus).items()
    }
    found = {}
    for (name, run), config in planned.items():
        folder = setting.out / "".join(c if c.isalnum() else "-" for c in name) / run
        begun = runs.begin(config, setting.corpus, folder, setting.runtime)
        about = {"variant": name, "seed": config.seed, "fold": config.fold}
        found[f"{name}/{run}"] = about | measure_branch(begun, branch)
    whole = known[WHOLE]
    changed = {name: differences(whole, variant) for name, variant in known.items() if variant != whole}
    return {"labels": list(setting.corpus.labels), "variants": changed, "runs": found}


def load_variants(
    config: RunConfig, path: Path | None = None, branch: BranchOfRecipe = "context"
) -> dict[str, RunConfig]:
    """Variant → its configuration, the whole recipe first; of `path`, or of the file named after recipe and branch.

    All are without `refit`, so that validation clips compare them; a recipe that has it is one more variant.

    Raises TrainingError for a file that cannot be read, a field or value that does not exist, or a change of nothing.
    """
    path = path or RECIPES / "ablations" / f"{config.recipe}-{branch}.toml"
    whole, config = config, replace(config, refit=False)
    variants = {WHOLE: config}
    for name, changed in read_toml(path).items():
        where = f"{path.name}: {name}"
        if not isinstance(changed, dict):
            raise TrainingError(f"{where} is not a table of changed fields", got=repr(changed))
        variants[name] = decode(RunConfig, _merged(to_dict(config), changed), where, TrainingError)
        if variants[name] == config:
            raise TrainingError(f"{where} changes nothing", got=changed)
    return variants if whole == config else {**variants, REFIT: whole}


def _merged(whole: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(whole[k], v) if isinstance(v, dict) and k in whole else v for k, v in changed.items()}
    return whole | both


def measure_branch(run: TrainingRun, branch: BranchOfRecipe) -> dict[str, Any]:
    """A branch's figures on test clips, its accuracy on validation clips, and what its training took.

    With `refit` there are no validation clips that it has not been trained on: their accuracy is None.
    """
    name = run.config.context.name if branch == "context" else runs.SPECTROGRAM
    arrays = _predictions(run, branch, name)
    truth, validation = (run.targets(part).numpy() for part in ("test", "validation"))
    held_out = None if run.config.refit else (validation, arrays["validation"])
    row = figures(truth, arrays["test"], run.corpus.labels, held_out)
    stage = stage_figures(run.folder)[name]
    right = float((held_out[1].argmax(axis=1) == validation).mean()) if held_out else None
    trained = int(arrays["trained_parameters"])
    return {"trained_parameters": trained, "stage": stage, "validation_accuracy": right, "figures": row}


def _predictions(run: TrainingRun, branch: BranchOfRecipe, name: str) -> dict[str, Any]:
    """Part → probabilities (n, C) of a branch, trained if it is not yet."""
    path = run.folder / PREDICTIONS.format(branch)
    if not path.is_file():
        alone = {name: runs.build_branches(run.config, len(run.corpus.labels))[name]}
        (train_context if branch == "context" else train_spectrogram)(run, alone)
        trained = sum(p.numel() for p in alone[name].parameters() if p.requires_grad)
        arrays = {part: branch_probabilities(run, alone, part)[name] for part in ("validation", "test")}
        write_arrays(path, {**arrays, "trained_parameters": trained})
    return read_arrays(path)
