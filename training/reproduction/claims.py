"""The paper's claims one by one: where the code for each is, how to check it, what is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.reproduction.markdown import table
from training.reproduction.protocols import averaged
from training.reproduction.published import FIG_2_CORRECT, TABLE_I, TABLE_IV
from training.reproduction.results import Experiment
from training.reproduction.tables import select

NOT_MEASURED = "not measured here"
Measure = Callable[[Sequence[Experiment]], list[tuple[str, str, str]]]
"""Experiments → (backbone and recipe, measured, deviation) of every one that speaks to the claim."""


COLLAPSED = 9
"""Unfrozen layers, of twelve, with which the paper's training collapsed (Table IV)."""


class Claim(NamedTuple):
    """One claim of the paper."""

    place: str
    text: str
    files: str
    command: str
    measure: Measure


def claims_table(experiments: Sequence[Experiment]) -> str:
    """Every claim with its file, command, measured figure and deviation, as a Markdown table."""
    rows = []
    for claim in CLAIMS:
        found = claim.measure(experiments) or [("", NOT_MEASURED, "–")]
        measured = "<br>".join(f"{name}: {figure}" if name else figure for name, figure, _ in found)
        deviation = "<br>".join(difference for *_, difference in found)
        rows.append((claim.text, claim.place, claim.files, f"`{claim.command}`", measured, deviation))
    return table(["claim", "in", "file", "command", "measured", "deviation"], rows)


def _title(experiment: Experiment) -> str:
    return f"{experiment.backbone}/{experiment.recipe}"


def _runs(experiments: Sequence[Experiment]) -> Iterable[tuple[Experiment, list[dict[str, Any]]]]:
    for experiment in select(experiments, "protocol", "paper"):
        yield experiment, list(experiment.results["runs"].values())


def _points(value: float) -> str:
    return f"{value:+.2f} points".replace("-", "−")


def _split_sizes(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
    found = []
    for experiment, runs in _runs(experiments):
        clips = runs[0]["clips"]
        same = all(run["clips"] == TABLE_I for run in runs)
        figure = " / ".join(str(clips[part]) for part in TABLE_I)
        found.append((_title(experiment), figure, "none" if same else "another split"))
    return found


def _accuracy(model: str, paper: float) -> Measure:
    def measure(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
        found = []
        for experiment, runs in _runs(experiments):
            accuracy = averaged(runs, model)["accuracy"]
            mean = 100 * accuracy["mean"]
            sd = "" if accuracy["sd"] is None else f" ± {100 * accuracy['sd']:.2f}"
            found.append((_title(experiment), f"{mean:.2f} %{sd} (n {accuracy['n']})", _points(mean - paper)))
        return found

    return measure


def _best_depth(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
    best = max(TABLE_IV, key=lambda k: TABLE_IV[k].accuracy)
    found = []
    for experiment in select(experiments, "unfreezing", "paper"):
        runs = list(experiment.results["runs"].values())
        top = max(runs, key=lambda run: run["figures"]["accuracy"])
        text = f"{top['layers']} of {experiment.results['depth']} ({100 * top['figures']['accuracy']:.2f} %)"
        found.append((_title(experiment), text, "none" if top["layers"] == best else f"the paper's best is {best}"))
    return found


def _collapse(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
    found = []
    for experiment in select(experiments, "unfreezing", "paper"):
        deepest = max(experiment.results["runs"].values(), key=lambda run: run["layers"])
        figures = deepest["figures"]
        text = f"{deepest['layers']} layers: {100 * figures['accuracy']:.2f} %"
        collapsed = figures["accuracy_interval"][0] < 1 / len(figures["confusion"]) + 0.1
        deviation = "none" if collapsed else "no collapse"
        if deepest["layers"] < COLLAPSED:
            deviation = f"not comparable: {experiment.results['depth']} layers in all, {deepest['layers']} unfrozen"
        found.append((_title(experiment), text, deviation))
    return found


def _gain(better: str, worse: str, paper: float) -> Measure:
    """By how many points one row of Table V beats another, by what the fusion was fitted on."""

    def measure(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
        found = []
        for experiment in select(experiments, "fusion", "paper"):
            rows = {(row["strategy"], row["fit_on"]): row for row in experiment.results["rows"]}
            for (strategy, fit_on), row in rows.items():
                other = rows.get((worse, fit_on)) or rows.get((worse, None))
                if strategy == better and other:
                    gain = 100 * (row["accuracy"] - other["accuracy"])
                    found.append((f"{_title(experiment)}, {fit_on}", _points(gain), _points(gain - paper)))
        return found

    return measure


def _confusion(experiments: Sequence[Experiment]) -> list[tuple[str, str, str]]:
    found = []
    for experiment, runs in _runs(experiments):
        labels = runs[0]["labels"]
        if set(labels) != set(FIG_2_CORRECT):
            continue
        matrix = np.array(runs[0]["models"]["fused"]["confusion"])
        shown = ", ".join(f"{name} {matrix[i, i]}/{matrix[i].sum()}" for i, name in enumerate(labels))
        less = ", ".join(
            f"{name} {difference:+d}".replace("-", "−")
            for i, name in enumerate(labels)
            if (difference := int(matrix[i, i]) - FIG_2_CORRECT[name][0])
        )
        found.append((f"{_title(experiment)}, seed {runs[0]['seed']}", shown, less or "none"))
    return found


RUN = "ser-train protocol paper --recipe paper --seeds 0,1,2,3,4 --data RAVDESS --out RUNS"
UNFREEZE = "ser-train unfreeze --recipe paper --layers 1,3,5,9 --data RAVDESS --out RUNS"
FUSION = "ser-train fusion RUN"
CLAIMS = (
    Claim(
        "Table I",
        "1147 / 143 / 150 clips",
        "training/data/splits.py",
        "pytest tests/training/data/test_splits.py",
        _split_sizes,
    ),
    Claim("Tables III, V", "LR fusion: 92.67 % accuracy", "training/models/fusion.py", RUN, _accuracy("fused", 92.67)),
    Claim(
        "Table V",
        "the spectrogram branch alone: 77 %",
        "training/models/spectrogram.py",
        RUN,
        _accuracy("spectrogram", 77.0),
    ),
    Claim(
        "Tables IV, V",
        "wav2vec 2.0, three layers unfrozen: 88.67 %",
        "training/models/context.py",
        RUN,
        _accuracy("context", 88.67),
    ),
    Claim("IV-D", "three unfrozen layers are best", "training/reproduction/unfreezing.py", UNFREEZE, _best_depth),
    Claim(
        "IV-D", "nine unfrozen layers collapse to 17.33 %", "training/reproduction/unfreezing.py", UNFREEZE, _collapse
    ),
    Claim(
        "Table V",
        "LR fusion beats the context branch by 4 points",
        "training/reproduction/table_v.py",
        FUSION,
        _gain("logistic regression", "context", 4.0),
    ),
    Claim(
        "Table V",
        "LR fusion beats weighted fusion by 2 points",
        "training/reproduction/table_v.py",
        FUSION,
        _gain("logistic regression", "weighted", 2.0),
    ),
    Claim(
        "Table V",
        "gated fusion falls 0.67 points below the context branch",
        "training/reproduction/table_v.py",
        FUSION,
        _gain("gated", "context", -0.67),
    ),
    Claim(
        "Fig. 2",
        "clips recognised: " + ", ".join(f"{name} {a}/{b}" for name, (a, b) in FIG_2_CORRECT.items()),
        "training/reproduction/figures.py",
        RUN,
        _confusion,
    ),
)
