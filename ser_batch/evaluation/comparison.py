"""Two models on the same labelled clips: what each gets right, and how sure their difference is.

Clips are paired: accuracies differ by McNemar's exact test; intervals of the differences are a bootstrap that draws
clips with what both models said of them (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import LabelMap
from ser_batch.evaluation.predictions import PredictionTable, check_once, has_probabilities, read_any, table_of
from ser_batch.evaluation.statistics import (
    LEVEL,
    Interval,
    McNemar,
    counts_by_group,
    drawn_counts,
    mcnemar,
    numbered_groups,
)
from ser_batch.evaluation.truth import LABEL_COLUMNS, match, texts
from ser_batch.recordings.columns import names_and_ids
from ser_batch.recordings.reader import find_column, shown

Rows = npt.NDArray[np.bool_]
ANSWERS = ("prediction", "predicted", "predicted_label", *LABEL_COLUMNS)
"""Columns of another tool's table that state its answer, the preferred one first."""


@dataclass(frozen=True)
class Paired:
    """A figure of both models on the same clips."""

    first: float
    second: float
    difference: float
    """Second − first."""
    interval: Interval
    """Of the difference: percentile bootstrap, 95 %, seeded."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the clips that both answer."""

    predictions: str
    """The second table."""
    clips: int
    unanswered: int
    """Clips that the first table's figures count, and that the second does not answer."""
    accuracy: Paired
    ua: Paired
    mcnemar: McNemar
    over: str = "clips"
    """What the bootstrap draws: clips, or the values of a column."""


def compare_with(
    path: str,
    table: PredictionTable,
    meaning: LabelMap,
    used: Rows,
    indices: npt.NDArray[np.int64],
    only: Sequence[str] | None,
    clusters: npt.NDArray[np.int64] | None,
    by: str | None,
    *,
    seed: int = 0,
) -> Comparison:
    """The fusion of `table` and the predictions at `path`, on the clips that both answer.

    Args:
        meaning: of labels, to the model of `table`.
        used: (N,) the rows of `table` that are measured.
        indices: (M,) true class indices of those.
        only: labels that count as answers; None: all.
        clusters: (M,) the group of each, by the column `by`; None: there are too few.

    Raises InputError where the predictions cannot be read, or answer none of the clips.
    """
    said = list(compress(answers_of(path, table, meaning, only=only is not None), used))
    both = np.array([answer is not None for answer in said])
    if not both.any():
        raise InputError(
            f"{path} answers none of the {len(said)} clips measured",
            expected=f"a row for {next(compress(table.keys, used))!r}",
        )
    right = np.array([table.labels[i] == answer for i, answer in zip(indices, said, strict=True)])
    first = table.models[FUSED][used].argmax(axis=1) == indices
    # Those of the clips that both answer may be fewer.
    groups = None if clusters is None else numbered_groups(clusters[both])
    figures = compare(indices[both], first[both], right[both], groups=groups, seed=seed)
    over = "clips" if groups is None else str(by)
    return Comparison(path, int(both.sum()), int((~both).sum()), *figures, over)


def compare(
    truth: npt.NDArray[np.integer],
    first: Rows,
    second: Rows,
    *,
    groups: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> tuple[Paired, Paired, McNemar]:
    """Accuracy and UA of two models, and the exact test of their accuracies.

    Args:
        truth: (N,) class indices.
        first: (N,) whether the first model is right; `second` alike.
        groups: (N,) each clip's, see `numbered_groups`: the bootstrap draws them instead of clips.
        seed: of the bootstrap.
    """
    outcome = 2 * first.astype(np.int64) + second
    classes, truth = np.unique(truth, return_inverse=True)
    cells = counts_by_group(4 * truth + outcome, 4 * len(classes), groups)
    whole = cells if cells.ndim == 1 else cells.sum(axis=0)
    measured = [_figures(table.reshape(-1, len(classes), 4)) for table in (whole, drawn_counts(cells, seed))]
    found = []
    for here, drawn in zip(*measured, strict=True):
        one, other = here[0].tolist()
        low, high = np.quantile(drawn[:, 1] - drawn[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found.append(Paired(one, other, other - one, Interval(float(low), float(high))))
    return found[0], found[1], mcnemar(first, second)


def _figures(cells: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accuracy and UA (R, 2) of both models, of counts (R, C, 4): both wrong, only second right, only first, both."""
    clips = cells.sum(axis=2)
    right = np.stack([cells[..., 2] + cells[..., 3], cells[..., 1] + cells[..., 3]], axis=2)
    recalls = np.divide(right, clips[..., None], out=np.zeros(right.shape), where=clips[..., None] > 0)
    return right.sum(axis=1) / clips.sum(axis=1)[:, None], recalls.sum(axis=1) / (clips > 0).sum(axis=1)[:, None]


def answers_of(path: str, table: PredictionTable, meaning: LabelMap, *, only: bool) -> list[str | None]:
    """What the predictions at `path` answer for each row of `table`, in its labels; None: they do not answer it.

    They are a run's, or a table of another tool: with a column of paths (or ids) and either probabilities `p_<label>`
    or a column of answers. An answer that means none of the table's labels stays as it is: it is wrong.

    Args:
        meaning: of labels, to the model of `table`.
        only: whether answers were limited to the table's labels; where there are probabilities, the likeliest of
            these is the answer.

    Raises:
        InputError: there are neither, or a recording has two rows.
    """
    found = read_any(path)
    if has_probabilities(found):
        other = table_of(path, found)
        said = _likeliest(other, table, meaning, only=only)
        files, ids = list(other.files), None if other.ids is None else list(other.ids)
    else:
        column = find_column(found, ANSWERS)
        names, ids = names_and_ids(path, found)
        if column is None or not (names or ids):
            raise InputError(
                f"{path} is no table of predictions",
                got=f"columns {shown(found.column_names)}",
                expected="a column path (or file, or id), and columns p_<label> or one of answers: prediction, label",
            )
        said = [None if answer is None else meaning(answer) or answer for answer in texts(found, column)]
        files = names or []
    by_id = ids is not None and (table.ids is not None or not files)
    return _of_rows(path, table.keys if by_id else table.files, ids if by_id and ids else files, said, ids=by_id)


def _likeliest(other: PredictionTable, table: PredictionTable, meaning: LabelMap, *, only: bool) -> list[str | None]:
    """The answer of each row of `other`: the probabilities of labels that mean the same are added."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for label, column in zip(other.labels, other.models[FUSED].T, strict=True):
        target = meaning(label)
        if (only and target not in table.labels) or (target is None and meaning.leaves_out(label)):
            continue
        name = target or label
        sums[name] = sums.get(name, 0) + column
    if not sums:
        return [None] * len(other.files)
    winners = np.stack(list(sums.values()), axis=1).argmax(axis=1)
    return [list(sums)[winner] if ok else None for winner, ok in zip(winners, other.ok, strict=True)]


def _of_rows(
    path: str, rows: Sequence[str], names: Sequence[str], said: Sequence[str | None], *, ids: bool
) -> list[str | None]:
    """The answers, by row."""
    check_once(path, names)
    known = dict(zip(names, said, strict=True))
    return [None if name is None else known[name] for name in match(rows, names, ids=ids).names]
