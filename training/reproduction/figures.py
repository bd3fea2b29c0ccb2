"""Figures 2, 3 and 4 of the paper and a reliability diagram, from committed results, as PNG and SVG.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines also differ by dash and bars by position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from training.reproduction.paper import TABLE_V

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "ser-batch",  # the same figure is the same file
    "svg.fonttype": "none",
}
Curve = Mapping[str, Any]
"""A stage's `train_loss` and `validation_accuracy`, one value per epoch (`predictions.stage_figures`)."""


@contextmanager
def _figure(folder: Path, name: str, title: str, width: float = 7, height: float = 5) -> Iterator[Axes]:
    """Axes whose figure is written to `folder`/`name`.png and .svg at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        try:
            axes.set_title(title, fontsize=12)
            yield axes
            figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        finally:
            plt.close(figure)


def confusion_figure(
    confusion: Sequence[Sequence[int]], folder: Path, name: str, title: str, *, labels: Sequence[str]
) -> None:
    """Fig. 2: counts of clips, rows the truth, columns the prediction; shades are shares of a row."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _figure(folder, name, title, 7, 6.4) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black" if counts[row, column] else "#BBBBBB"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="predicted", ylabel="truth")
        axes.spines[:].set_visible(False)


def curves_figure(curves: Mapping[str, Curve], folder: Path, name: str, title: str) -> None:
    """Fig. 3: validation accuracy (solid) and training loss (dashed, right axis) by epoch, one colour per stage.

    A stage that no validation clips watched has its loss alone.
    """
    with _figure(folder, name, title) as axes:
        losses = axes.twinx()
        losses.spines["right"].set_visible(True)
        colours = [*(BLUE, ORANGE, GREEN, GREY), *plt.get_cmap("cividis")(np.linspace(0, 0.9, len(curves)))]
        for (stage, curve), colour in zip(curves.items(), colours, strict=False):
            accuracies = [100 * value for value in curve["validation_accuracy"]]
            epochs = range(1, len(curve["train_loss"]) + 1)
            marker = "." if len(accuracies) < 3 else ""
            axes.plot(epochs[: len(accuracies)], accuracies, color=colour, label=stage, marker=marker)
            losses.plot(epochs, curve["train_loss"], color=colour, linestyle="--", linewidth=1)
        axes.set(xlabel="epoch", ylabel="validation accuracy, % (solid)", ylim=(0, 100))
        losses.set(ylabel="training loss (dashed)", ylim=(0, None))
        axes.legend(frameon=False, loc="lower right")


def fusion_figure(rows: Sequence[Mapping[str, Any]], folder: Path, name: str, title: str) -> None:
    """Fig. 4: accuracy of every row of Table V with its 95 % interval, the paper's figure as a mark."""
    names = [row["strategy"] + (f"\n({row['fit_on']})" if row["fit_on"] else "") for row in rows]
    accuracies = np.array([100 * row["accuracy"] for row in rows])
    bounds = 100 * np.array([row["accuracy_interval"] for row in rows])
    errors = np.maximum(0, [accuracies - bounds[:, 0], bounds[:, 1] - accuracies])
    with _figure(folder, name, title, 8, 1.5 + 0.48 * len(rows)) as axes:
        places = np.arange(len(rows))
        axes.barh(places, accuracies, xerr=errors, color=BLUE, ecolor="black", capsize=3, label="measured, 95 %")
        papers = [TABLE_V.get(row["strategy"].partition(",")[0]) for row in rows]
        marked = [(place, paper.accuracy) for place, paper in zip(places, papers, strict=True) if paper]
        if marked:
            axes.scatter(
                [a for _, a in marked], [p for p, _ in marked], color=ORANGE, marker="D", zorder=3, label="the paper"
            )
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy, %", xlim=(0, 100))
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, -0.28 if len(rows) < 8 else -0.14), ncols=2)


def reliability_figure(model: Mapping[str, Any], folder: Path, name: str, title: str) -> None:
    """Accuracy against confidence by bin, before and after temperature scaling; marks grow with a bin's clips."""
    with _figure(folder, name, title, 5.6, 5.6) as axes:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
        drawn = [("reliability", "ece", BLUE, "o", "as trained")]
        if "reliability_scaled" in model:
            drawn.append(("reliability_scaled", "ece_scaled", ORANGE, "s", f"temperature {model['temperature']:.2f}"))
        for key, ece, colour, marker, label in drawn:
            clips, confidence, accuracy = np.array([row for row in model[key] if row[0]], dtype=float).T
            axes.plot(confidence, accuracy, color=colour, linewidth=1)
            text = f"{label}: ECE {100 * model[ece]:.1f} %"
            axes.scatter(
                confidence, accuracy, s=20 + 200 * clips / clips.sum(), color=colour, marker=marker, label=text
            )
        axes.set(xlabel="winning probability", ylabel="share right", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        axes.legend(frameon=False, loc="upper left")
