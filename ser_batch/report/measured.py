"""Predictions against labels: confusion, reliability, figures by group; and two models on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.evaluation.comparison import compare as paired
from ser_batch.evaluation.evaluate import Question, ServedEvaluation, as_asked, find_truth
from ser_batch.evaluation.metrics import Evaluation
from ser_batch.evaluation.predictions import PredictionTable
from ser_batch.evaluation.statistics import percent
from ser_batch.report.figures import Figure, Table, heat, intervals, reliability, svg
from ser_batch.report.predicted import said

GROUPS_DRAWN, GROUPS_TOLD = 40, 1000


@dataclass(frozen=True)
class Comparison:
    """Two tables on the rows that both have."""

    only_first: int
    only_second: int
    figure: Figure
    """Which label of the first became which of the second."""
    agreement: float
    against_truth: Table | None
    sentence: str


def models(served: ServedEvaluation) -> Table:
    """A row of figures for the fusion, each branch, and the model before it was adapted."""
    rows = [
        (
            *(
                name,
                found.clips,
                percent(found.accuracy, found.accuracy_interval, digits=1),
                percent(found.ua, found.ua_interval, digits=1),
            ),
            *(f"{100 * found.macro.f1:.1f}", f"{found.ece:.3f}"),
            _p(served.against_fused[name].p).removeprefix("= ") if name in served.against_fused else "",
        )
        for name, found in served.models.items()
    ]
    columns = ("model", "rows", "accuracy, Wilson", "UA, bootstrap", "macro F1", "ECE", "McNemar p, against fused")
    return Table("Accuracy with 95 % intervals, in per cent", columns, rows)


def figures(served: ServedEvaluation) -> list[Figure]:
    """Confusion and reliability of the fusion, and its figures by group."""
    fused = served.models[FUSED]
    found = [_confusion(fused), _reliability(fused)]
    return [*found, _by_group(served)] if served.groups else found


def _confusion(fused: Evaluation) -> Figure:
    rows = [
        (scores.label, *counts, f"{scores.precision:.1%}", f"{scores.recall:.1%}")
        for scores, counts in zip(fused.classes, fused.confusion, strict=True)
    ]
    columns = ("true \\ said", *fused.labels, "precision", "recall")
    return Figure(
        "Confusion",
        f"{fused.correct:,} of {fused.clips:,} rows are right; UA is {fused.ua:.1%}.",
        svg(heat(fused.labels, fused.labels, fused.confusion, "true", "said")),
        Table("Rows by true label and by what the model said", columns, rows),
    )


def _reliability(fused: Evaluation) -> Figure:
    bins = [each for each in fused.reliability if each.clips]
    points = [{"confidence": b.confidence, "accuracy": b.accuracy, "clips": b.clips} for b in bins]
    rows = [
        (
            f"{b.low:.0%} to {b.high:.0%}",
            b.clips,
            f"{b.confidence:.1%}",
            f"{b.accuracy:.1%}",
        )
        for b in bins
    ]
    return Figure(
        "Reliability",
        f"Scores miss the share that is right by {fused.ece:.3f} on average (ECE); on the dashed line, by 0.",
        svg(reliability(points)),
        Table("Share right by score", ("score", "rows", "mean score", "right"), rows),
    )


def _by_group(served: ServedEvaluation) -> Figure:
    groups = sorted(served.groups, key=lambda group: -group.clips)
    shown = [
        {"name": g.group, "value": g.accuracy, "low": g.accuracy_interval.low, "high": g.accuracy_interval.high}
        for g in sorted(groups[:GROUPS_DRAWN], key=lambda group: group.accuracy)
    ]
    rows = [
        (g.group, g.clips, percent(g.accuracy, g.accuracy_interval, digits=1), f"{100 * g.ua:.1f}")
        for g in groups[:GROUPS_TOLD]
    ]
    drawn = f" The {GROUPS_DRAWN} largest are drawn." if len(groups) > GROUPS_DRAWN else ""
    worst, best = shown[0], shown[-1]
    return Figure(
        f"By {served.by}",
        f"Accuracy goes from {worst['value']:.1%} ({worst['name']}) to {best['value']:.1%} ({best['name']}).{drawn}",
        svg(intervals(shown, "accuracy, 95 % interval")),
        Table(f"Accuracy by {served.by}, in per cent", (str(served.by), "rows", "accuracy, Wilson", "UA"), rows),
    )


def truth_of(path: str, table: PredictionTable, question: Question) -> list[str | None]:
    """The label of each row in the words of the model; None where none is known."""
    asked, meaning = as_asked(table, question)
    truth, matching = find_truth(path, table, question)
    stated = [None if name is None else truth.labels[name] for name in matching.names]
    meant = [None if label is None else meaning(label) for label in stated]
    return [label if label in asked.labels else None for label in meant]


def compare(
    first: PredictionTable,
    second: PredictionTable,
    names: tuple[str, str],
    truth: Sequence[str | None] | None,
) -> Comparison:
    """What two tables say of the rows that both have, which are known by file or id, start and channel.

    Args:
        names: what the tables are called.
        truth: (N,) of the first table, in the words of the model; None: there are no labels.

    Raises:
        InputError: no row is in both, or with labels, none of these has one.
    """
    keys = [_keys(table) for table in (first, second)]
    place = {key: row for row, key in enumerate(keys[1])}
    pairs = [(row, place[key]) for row, key in enumerate(keys[0]) if key in place]
    rows = np.array([(a, b) for a, b in pairs if first.statuses[a] == second.statuses[b] == "ok"], dtype=np.int64)
    if not len(rows):
        raise InputError(
            "the two tables have no scored row in common", got=f"rows like {keys[0][:1]} and {keys[1][:1]}"
        )
    labels = [
        [table.labels[i] if i >= 0 else "" for i in said(table)[rows[:, k]]] for k, table in enumerate((first, second))
    ]
    agree = float(np.mean([a == b for a, b in zip(*labels, strict=True)]))
    counts = np.zeros((len(first.labels), len(second.labels)), dtype=int)
    for a, b in zip(*labels, strict=True):
        counts[first.labels.index(a), second.labels.index(b)] += 1
    figure = Figure(
        "Labels of both",
        f"Both say the same of {agree:.1%} of {len(rows):,} rows.",
        svg(heat(first.labels, second.labels, counts.tolist(), names[0], names[1])),
        Table(
            f"Rows by the label of {names[0]} and of {names[1]}",
            (f"{names[0]} \\ {names[1]}", *second.labels),
            [(label, *map(int, line)) for label, line in zip(first.labels, counts, strict=True)],
        ),
    )
    against, sentence = None, ""
    if truth is not None:
        against, sentence = _against_truth(first, second, names, truth, rows)
    return Comparison(len(keys[0]) - len(pairs), len(keys[1]) - len(pairs), figure, agree, against, sentence)


def _against_truth(
    first: PredictionTable,
    second: PredictionTable,
    names: tuple[str, str],
    truth: Sequence[str | None],
    rows: npt.NDArray[np.int64],
) -> tuple[Table, str]:
    known = rows[[truth[a] is not None and truth[a] in second.labels for a, _ in rows]]
    if not len(known):
        raise InputError("no row that both tables have has a known label")
    labels = [str(truth[a]) for a, _ in known]
    hits = [
        np.array([table.labels[i] for i in table.models[FUSED][known[:, k]].argmax(axis=1)]) == labels
        for k, table in enumerate((first, second))
    ]
    *figures, test = paired(np.array([first.labels.index(label) for label in labels]), hits[0], hits[1])
    lines = [
        (names[0], len(known), *(f"{100 * figure.first:.1f}" for figure in figures)),
        (names[1], len(known), *(f"{100 * figure.second:.1f}" for figure in figures)),
        ("second − first", len(known), *(percent(figure.difference, figure.interval, digits=1) for figure in figures)),
    ]
    sentence = (
        f"Only {names[0]} is right in {test.only_first:,} rows, only {names[1]} in {test.only_second:,}: "
        f"exact McNemar test, p {_p(test.p)}."
    )
    columns = ("table", "rows", "accuracy", "UA")
    return Table("Both on the same rows, in per cent; the difference by a bootstrap", columns, lines), sentence


def _keys(table: PredictionTable) -> list[tuple[object, ...]]:
    own = [table.others[name].to_pylist() for name in ("start", "channel") if name in table.others.column_names]
    repeated = len(set(table.keys)) < len(table.keys)
    return list(zip(table.keys, *own, strict=True)) if repeated else [(key,) for key in table.keys]


def _p(p: float) -> str:
    return f"= {p:.3g}" if p >= 1e-4 else "< 0.0001"


def labels_of_second(first: PredictionTable, second: PredictionTable) -> list[str]:
    """What the second table says of each row of the first; empty where it says nothing."""
    spoken = [second.labels[i] if i >= 0 else "" for i in said(second)]
    heard = dict(zip(_keys(second), spoken, strict=True))
    return [heard.get(key, "") for key in _keys(first)]
