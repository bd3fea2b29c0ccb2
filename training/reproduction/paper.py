"""The paper: its published figures, and its claims one by one with code, command and what is measured here.

Published figures are per cent, as printed; None is a figure that is not given. Sources: the paper's Tables I and
III–V, Fig. 2 as its section IV-C describes it; EmoBox (Ma et al., Interspeech 2024), RAVDESS, speaker-independent, six
folds, frozen encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ser_batch.text import markdown_table
from training.reproduction.protocols import averaged
from training.reproduction.results import Experiment, select


class Scores(NamedTuple):
    """Accuracy and macro averages, per cent."""

    accuracy: float
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None


class EmoBox(NamedTuple):
    """Unweighted and weighted accuracy and macro-F1, per cent."""

    ua: float
    wa: float
    f1: float


TABLE_I = {"train": 1147, "validation": 143, "test": 150}
"""Clips of each part."""
TABLE_III = {
    "MFCC-Fusion (2023)": Scores(81.5, 82.5, 85.5),
    "AFEA-Net (2025)": Scores(80.3, 80.8, 80.6, 80.4),
    "CNN-n-GRU (2025)": Scores(86.6, 87.1, 86.6, 86.7),
    "MFGCN (2025)": Scores(85.7, 85.7, 85.1, 85.4),
    "IGRFXG (2025)": Scores(79.3),
    "RELUEM (2025)": Scores(89.5, 87.0, 85.0, 86.0),
    "the paper": Scores(92.7, 92.4, 92.5, 92.2),
}
"""Method → figures, the paper's own last."""
TABLE_IV = {
    1: Scores(82.67, 83.63, 80.63, 81.22),
    3: Scores(88.67, 88.22, 88.75, 88.19),
    5: Scores(88.0, 87.22, 86.88, 86.81),
    9: Scores(17.33, 5.0, 16.25, 7.42),
}
"""Unfrozen layers of wav2vec 2.0 base's twelve → figures."""
TABLE_V = {
    "spectrogram": Scores(77.0, 76.0, 74.0, 74.0),
    "context": Scores(88.67, 88.22, 88.75, 88.19),
    "weighted": Scores(90.67, 90.4, 90.62, 90.32),
    "gated": Scores(88.0, 87.97, 86.87, 87.08),
    "logistic regression": Scores(92.67, 92.36, 92.5, 92.24),
}
"""Model or fusion strategy → figures."""
FIG_2_CORRECT = {
    "neutral": (9, 10),
    "calm": (18, 20),
    "happy": (20, 20),
    "sad": (20, 20),
    "angry": (17, 20),
    "fearful": (18, 20),
    "disgust": (19, 20),
    "surprised": (18, 20),
}
"""Emotion → clips recognised of clips tested; of the 20 angry ones the text accounts for 19."""
EMOBOX = {
    "wav2vec2-base": EmoBox(54.33, 55.40, 53.99),
    "hubert-base": EmoBox(65.43, 66.21, 65.31),
    "wavlm-base": EmoBox(61.56, 62.10, 61.18),
    "wavlm-large": EmoBox(72.00, 72.22, 71.42),
    "data2vec2-large": EmoBox(71.15, 71.63, 70.94),
    "whisper-large-v3": EmoBox(75.32, 75.87, 75.19),
}
"""Frozen encoder → figures."""

NOT_MEASURED = "not measured here"
TO_COMMITTED = "--results training/results"
"""Option that writes a result to the folder that the repository's own page is made from."""
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
    return markdown_table(["claim", "in", "file", "command", "measured", "deviation"], rows)


def _title(experiment: Experiment) -> str:
    capped = caps(experiment)
    return f"{experiment.backbone}/{experiment.recipe}" + (f" ({capped})" if capped else "")


def caps(experiment: Experiment) -> str:
    """Which stages were stopped short of the paper's epochs, on its own schedule: "spectrogram 40 of 500 epochs"."""
    changed, found = experiment.changed, []
    for stage in ("spectrogram", "context"):
        paper, here = changed.get(f"{stage}_stage.epochs", (0, 0))
        own = {f"{stage}_stage.{name}" for name in ("schedule", "optimizer")} & changed.keys()
        if here < paper and not own:
            found.append(f"{stage} {here} of {paper} epochs")
    return ", ".join(found)


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
        top = max(runs, key=lambda run: max(run["stage"]["validation_accuracy"]))
        validation, test = max(top["stage"]["validation_accuracy"]), top["figures"]["accuracy"]
        text = f"{top['layers']} of {experiment.results['depth']} by validation ({100 * validation:.2f} %; "
        text += f"test {100 * test:.2f} %)"
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


RUN = f"ser-train protocol paper --recipe paper --seeds 0,1,2,3,4 --data RAVDESS --out RUNS {TO_COMMITTED}"
UNFREEZE = f"ser-train unfreeze --recipe paper --layers 1,3,5,9 --data RAVDESS --out RUNS {TO_COMMITTED}"
FUSION = f"ser-train fusion RUN {TO_COMMITTED}"
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
    Claim("IV-D", "three unfrozen layers are best", "training/reproduction/studies.py", UNFREEZE, _best_depth),
    Claim("IV-D", "nine unfrozen layers collapse to 17.33 %", "training/reproduction/studies.py", UNFREEZE, _collapse),
    Claim(
        "Table V",
        "LR fusion beats the context branch by 4 points",
        "training/reproduction/predictions.py",
        FUSION,
        _gain("logistic regression", "context", 4.0),
    ),
    Claim(
        "Table V",
        "LR fusion beats weighted fusion by 2 points",
        "training/reproduction/predictions.py",
        FUSION,
        _gain("logistic regression", "weighted", 2.0),
    ),
    Claim(
        "Table V",
        "gated fusion falls 0.67 points below the context branch",
        "training/reproduction/predictions.py",
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
