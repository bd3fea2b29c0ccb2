"""Whole protocols: every split and seed a run of its own, all reported by the same table.

Under `paper` the runs differ by seed, which draws the split too. `emobox` and `sentence` test every clip of the
corpus once per seed, so that their folds can be pooled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import binom

from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import macro_scores, unweighted_average_recall
from ser_batch.evaluation.statistics import binomial_test, bootstrap_interval, wilson_interval
from training.config import BranchOfRecipe, RunConfig
from training.data.corpus import Corpus
from training.data.splits import other_take_share, splits_of
from training.reproduction.predictions import by_speaker, compare_fused, load_predictions, measure, stage_figures
from training.reproduction.results import METRICS, RESULTS, spread
from training.runs import fitted_parts
from training.runtime import Runtime
from training.stages import train

Protocol = Literal["paper", "emobox", "sentence", "given"]


@dataclass(frozen=True)
class Setting:
    """What every experiment of one command shares."""

    config: RunConfig
    corpus: Corpus
    out: Path
    """Folder of the runs."""
    runtime: Runtime = field(default_factory=Runtime)
    results: Path = RESULTS
    """Folder of the JSON."""
    command: str = ""
    """The command as the results record it."""


def run_protocol(
    setting: Setting,
    protocol: Protocol,
    seeds: Sequence[int],
    only: BranchOfRecipe | None = None,
) -> dict[str, Any]:
    """Train and test every split of a protocol with every seed, in `out`/seed<n>[-fold<k>].

    Finished runs are read, killed ones go on. With `only`, one branch of each is trained and nothing is reported.

    Returns {"runs": {name: measured figures}}; see `pooled` and `averaged`.
    Raises TrainingError before any training when data, splits or seeds do not fit.
    """
    corpus, found = setting.corpus, {}
    planned = plan(setting.config, protocol, seeds, corpus)
    speakers = {example.file: example.speaker for example in corpus.examples}
    for name, (config, share) in planned.items():
        folder = setting.out / name
        train(config, corpus, folder, setting.runtime, only=only)
        if not only:
            predictions = load_predictions(folder)
            found[name] = measure(predictions)
            found[name] |= {"other_take_share": share, "stages": stage_figures(folder)}
            found[name] |= {"mcnemar_fused": compare_fused(predictions), "speakers": by_speaker(predictions, speakers)}
    return {"runs": found}


def plan(
    config: RunConfig, protocol: Protocol, seeds: Sequence[int], corpus: Corpus
) -> dict[str, tuple[RunConfig, float | None]]:
    """Every run's name → its configuration and the share of its test clips whose other take is trained on."""
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise TrainingError("a protocol needs seeds", got=list(seeds), expected="different numbers from 0")
    corpus.check_files()
    planned = {}
    for seed in seeds:
        splits = splits_of(protocol, corpus, seed)
        for fold, split in enumerate(splits):
            name = f"seed{seed}" if len(splits) == 1 else f"seed{seed}-fold{fold}"
            settings = replace(config, protocol=protocol, seed=seed, fold=fold)
            planned[name] = (settings, other_take_share(corpus, split, fitted_parts(settings)))
    return planned


def averaged(runs: Iterable[dict[str, Any]], model: str) -> dict[str, dict[str, Any]]:
    """Metric → {mean, sd, n} of one model over runs."""
    rows = [run["models"][model] for run in runs]
    return {metric: spread(row[metric] for row in rows) for metric in METRICS}


def pooled(runs: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """One model's figures over the test clips of several runs taken together, as one seed's folds can be.

    Recall, F1 and intervals come from the summed confusion matrix; McNemar's counts add up likewise.
    """
    matrix = np.sum([run["models"][model]["confusion"] for run in runs], axis=0)
    classes, hits, clips = len(matrix), int(np.trace(matrix)), int(matrix.sum())
    cells = np.repeat(np.arange(classes * classes), matrix.ravel())
    truth, predicted = cells // classes, cells % classes

    def recall(t: np.ndarray, p: np.ndarray) -> float:
        return unweighted_average_recall(t, p, classes)

    return {
        "clips": clips,
        "accuracy": hits / clips,
        "accuracy_interval": list(wilson_interval(hits, clips)),
        "ua": recall(truth, predicted),
        "ua_interval": list(bootstrap_interval(recall, truth, predicted)),
        "macro_f1": macro_scores(truth, predicted, classes).f1,
        "confusion": matrix.tolist(),
    }


def calibration(runs: Sequence[dict[str, Any]], model: str, key: str = "reliability_scaled") -> dict[str, float]:
    """One model's expected calibration error, run by run and over each seed's test clips, each beside chance's.

    `key` is the bins': "reliability" or "reliability_scaled". Chance is what a model has on average that is calibrated
    exactly and gives these clips these confidences: a few clips a bin are right more or less often than they should.

    Returns {"run", "run_chance", "seed", "seed_chance"}, means over runs and over seeds.
    """

    def bins(of: Iterable[dict[str, Any]]) -> np.ndarray:
        return np.array([run["models"][model][key] for run in of])  # (n, bins, 3)

    run, run_chance = np.mean([_bins_error(of_run) for of_run in bins(runs)], axis=0)
    seeds = [_together(bins(of_seed)) for of_seed in by_seed(runs).values()]
    seed, seed_chance = np.mean([_bins_error(of_seed) for of_seed in seeds], axis=0)
    return {"run": run, "run_chance": run_chance, "seed": seed, "seed_chance": seed_chance}


def _together(bins: np.ndarray) -> np.ndarray:
    """The bins of several runs, (runs, bins, 3), as those of all their clips, (bins, 3)."""
    clips = bins[..., :1]
    total = clips.sum(axis=0)
    return np.concatenate([total, (clips * bins[..., 1:]).sum(axis=0) / np.maximum(total, 1)], axis=1)


def _bins_error(bins: np.ndarray) -> tuple[float, float]:
    """Expected calibration error of bins (bins, [clips, confidence, accuracy]), and chance's by de Moivre's formula."""
    clips, confidence, accuracy = bins.T
    least = np.floor(clips * confidence) + 1  # hits above what is expected
    chance = 2 * least * (1 - confidence) * binom.pmf(least, clips, confidence)  # clips · mean |share − confidence|
    return float(clips @ abs(accuracy - confidence) / clips.sum()), float(chance.sum() / clips.sum())


def pooled_mcnemar(tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One McNemar's test of two models from those of several runs, over all their test clips."""
    first, second = (sum(test[side] for test in tests) for side in ("only_first", "only_second"))
    return {"only_first": first, "only_second": second, "p": binomial_test(first, second)}


def pooled_speakers(runs: Iterable[dict[str, Any]], model: str) -> dict[str, float]:
    """Speaker → accuracy of one model over the test clips of several runs, the least of them first."""
    clips: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for run in runs:
        for speaker, row in run.get("speakers", {}).items():
            clips[speaker] += row["clips"]
            right[speaker] += row[model]
    return dict(sorted(((s, right[s] / clips[s]) for s in clips), key=lambda item: item[1]))


def by_seed(runs: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The runs of each seed, by fold."""
    found: dict[int, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: (run["seed"], run["fold"])):
        found.setdefault(run["seed"], []).append(run)
    return found
