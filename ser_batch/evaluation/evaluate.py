"""A predictions file against the truth: the same metrics as in training, through the served path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.evaluation.comparison import Comparison, compare_with
from ser_batch.evaluation.label_map import CORPORA, NAMED, LabelMap
from ser_batch.evaluation.metrics import Evaluation, evaluate, recall_interval, unweighted_average_recall
from ser_batch.evaluation.predictions import PredictionTable, among, merged, read_predictions
from ser_batch.evaluation.statistics import (
    Interval,
    McNemar,
    counts_by_group,
    mcnemar,
    numbered_groups,
    wilson_interval,
)
from ser_batch.evaluation.truth import Matching, Truth, labels_in_names, match, read_part, read_truth, texts
from ser_batch.recordings.reader import find_column, shown

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """What predictions are measured against, and how."""

    labels: str | None = None
    """A corpus of `label_map.NAMED`, whose recordings' names say the label; or a table of labels; None: `column` of the
    predictions themselves, which a table of recordings handed through."""
    column: str | None = None
    """Column that holds the labels; None: `label`."""
    label_map: Mapping[str, str] | None = None
    """Label -> label of the model, or empty: left out; see `label_map.LabelMap`."""
    corpora: Sequence[str] = ()
    """Whose codes are understood."""
    only: Sequence[str] | None = None
    """Labels that count as answers; see `predictions.among`."""
    split: Path | None = None
    """A run's split.json; only the recordings of its `part` are measured."""
    part: str = "test"
    by: str | None = None
    """Column, of the labels or of the predictions, that groups recordings."""
    root: str | None = None
    """The `--root` of the run: where the audio is that segments of other tools are about; None: beside them."""


@dataclass(frozen=True)
class Coverage:
    """What became of every row, so that no clip leaves the figures unsaid."""

    rows: int
    outside_part: int
    """Rows that are not in the chosen part of the split."""
    without_truth: int
    """Rows of the part whose label nobody states."""
    left_out: dict[str, int]
    """Label that the model lacks, or that is not among the answers -> rows of the part."""
    failed: int
    """Rows with a truth and without a prediction: they are in no figure."""
    unscored: dict[str, int]
    """The same by status: error, silent, short."""
    evaluated: int
    missing: int = 0
    """Recordings of the part, or of the labels' file, that have no row."""
    nameless: int = 0
    """Rows of the labels' file that name no recording."""
    by_base_name: int = 0
    """Rows matched by base name, since no relative path was equal."""
    ambiguous: int = 0
    """Rows left out because their base name stands for several recordings."""


@dataclass(frozen=True)
class Group:
    """How the fusion fared on the recordings of one group."""

    group: str
    clips: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    """Wilson, 95 %."""
    ua: float
    """Over the labels that occur in the group."""


@dataclass(frozen=True)
class ServedEvaluation:
    """Metrics of the fusion and of each branch on the clips of a predictions file."""

    predictions: str
    truth: str
    """Where the labels came from, and which part of which split."""
    provenance: dict[str, str]
    coverage: Coverage
    read_as: dict[str, str]
    """Label of the truth -> label of the model, where they are written differently."""
    models: dict[str, Evaluation]
    """The fusion first."""
    against_fused: dict[str, McNemar]
    """The fusion (first) and each branch (second) on the same clips."""
    never_true: tuple[str, ...] = ()
    """Labels that the model may answer and no clip has, where `Question.only` does not say which can occur."""
    by: str | None = None
    groups: tuple[Group, ...] = ()
    """In the order of their names."""
    ua_interval_over_groups: Interval | None = None
    """Of the fusion's UA: a bootstrap that draws whole groups, where all clips have one and there are five or more."""
    comparison: Comparison | None = None
    """With a second table."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        models = {name: evaluation.to_dict() for name, evaluation in self.models.items()}
        return asdict(self) | {"models": models, "groups": [asdict(group) for group in self.groups]}


def evaluate_predictions(
    predictions: str | Path, question: Question, second: str | Path | None = None, *, seed: int = 0
) -> ServedEvaluation:
    """Measure a table of predictions (see `predictions.read_predictions`).

    Args:
        second: predictions of another model for the same clips, which the fusion is compared with; see
            `comparison.answers_of`.
        seed: of the bootstrap.

    Raises InputError for files that cannot be read, and where nothing was matched.
    """
    table, meaning = as_asked(read_predictions(predictions), question)
    inside, chosen = _part(table, question)
    truth, matching = find_truth(str(predictions), table, question)
    stated = [None if name is None else truth.labels[name] for name in matching.names]
    meant = [None if label is None else _among(meaning(label), table.labels) for label in stated]
    used = inside & _given(meant) & table.ok
    missing = matching.missing if question.split is None else chosen.missing
    coverage = replace(
        _coverage(table, inside, stated, meant),
        missing=len(missing),
        nameless=truth.nameless,
        by_base_name=len(chosen.by_base_name | matching.by_base_name),
        ambiguous=len(chosen.ambiguous | matching.ambiguous),
    )
    described = _described(str(predictions), table, question)
    if not used.any():
        raise _nothing(predictions, table, described, coverage, missing)
    indices = np.array([table.labels.index(label) for label in compress(meant, used) if label], dtype=np.int64)
    members = _members(table, question, truth, matching, used)
    clusters = _clusters(members)
    right = {name: rows[used].argmax(axis=1) == indices for name, rows in table.models.items()}
    return ServedEvaluation(
        str(predictions),
        described,
        table.provenance,
        coverage,
        dict(meaning.read_as.keys()),
        {name: evaluate(indices, rows[used], table.labels, seed=seed) for name, rows in table.models.items()},
        {name: mcnemar(right[FUSED], hits) for name, hits in right.items() if name != FUSED},
        () if question.only is not None else _never_true(table, used, indices),
        question.by,
        _groups(table, members, used, indices),
        None if clusters is None else _over_groups(table, used, indices, clusters, seed),
        None
        if second is None
        else compare_with(str(second), table, meaning, used, indices, question.only, clusters, question.by, seed=seed),
    )


def _never_true(table: PredictionTable, used: Rows, indices: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Labels with a probability and without a clip; nothing where fewer than two have clips to choose among."""
    there = np.bincount(indices, minlength=len(table.labels)) > 0
    possible = (table.models[FUSED][used] > 0).any(axis=0)
    return tuple(compress(table.labels, possible & ~there)) if there.sum() >= 2 else ()


def _given(column: Sequence[str | None]) -> Rows:
    return np.array([each is not None for each in column], dtype=bool)


def _coverage(
    table: PredictionTable, inside: Rows, stated: Sequence[str | None], meant: Sequence[str | None]
) -> Coverage:
    """What became of the rows, by the label that is stated of each, and what it means to the model."""
    has_truth, known = _given(stated), _given(meant)
    unscored = Counter(compress(table.statuses, inside & known & ~table.ok))
    return Coverage(
        rows=len(table.files),
        outside_part=int((~inside).sum()),
        without_truth=int((inside & ~has_truth).sum()),
        left_out=dict(Counter(label for label in compress(stated, inside & has_truth & ~known) if label)),
        failed=unscored.total(),
        unscored=dict(unscored),
        evaluated=int((inside & known & table.ok).sum()),
    )


def as_asked(table: PredictionTable, question: Question) -> tuple[PredictionTable, LabelMap]:
    """The table with its labels merged and limited, and what labels of the truth mean to it."""
    meaning = LabelMap(table.labels, question.label_map or {}, question.corpora)
    table = merged(table, meaning.merged()) if meaning.merged() else table
    if question.only is not None:
        table = among(table, [meaning(label) or label for label in question.only])
        meaning.read_as.clear()
    return table, meaning


def _among(label: str | None, labels: Sequence[str]) -> str | None:
    return label if label in labels else None


def _part(table: PredictionTable, question: Question) -> tuple[Rows, Matching]:
    """Which rows are in the chosen part of the split."""
    if question.split is None:
        return np.ones(len(table.files), dtype=bool), match((), ())
    chosen = match(table.files, read_part(question.split, question.part)[1])
    return np.array([found is not None for found in chosen.names], dtype=bool), chosen


def find_truth(predictions: str, table: PredictionTable, question: Question) -> tuple[Truth, Matching]:
    """What is stated, and which of it each row of the table is.

    Args:
        predictions: the path of the table, for messages.

    Raises InputError where the labels cannot be read.
    """
    if question.labels is None:
        return _handed_through(predictions, table, question.column or "")
    if question.labels.lower() in NAMED:
        truth = Truth(dict(labels_in_names(table.files, question.labels.lower())), {}, by_id=False)
        return truth, match(table.files, tuple(truth.labels))
    if question.labels.lower() in CORPORA:
        raise InputError(
            f"the names of {CORPORA[question.labels.lower()].title} do not say the label",
            expected=f"a table of labels; or one of {', '.join(NAMED)}",
            remedy=f"Its codes are understood with --map {question.labels.lower()}.",
        )
    in_predictions = question.by is not None and find_column(table.others, [question.by]) is not None
    group = None if in_predictions else question.by
    truth = read_truth(
        question.labels, by_id=table.ids is not None, column=question.column, group=group, root=question.root
    )
    return truth, match(table.keys if truth.by_id else table.files, tuple(truth.labels), ids=truth.by_id)


def _handed_through(predictions: str, table: PredictionTable, column: str) -> tuple[Truth, Matching]:
    """The labels that a table of recordings stated, and that the run handed through."""
    names = [f"given_{column}"] if column == "label" else [column, f"given_{column}"]
    found = find_column(table.others, names)
    if found is None:
        raise InputError(
            f"{predictions} has no column {names[0]!r} that a table of recordings brought",
            got=shown(table.others.column_names),
            remedy="Name one of them, or a table: --labels FILE.",
        )
    keys = [str(row) for row in range(len(table.files))]
    return Truth(dict(zip(keys, texts(table.others, found), strict=True)), {}, by_id=True), match(keys, keys, ids=True)


def members_of(table: PredictionTable, by: str, truth: Truth, matching: Matching) -> list[str | None]:
    """The group of every row, by a column of the predictions or of the labels; None where it has none.

    Raises:
        InputError: neither has the column.
    """
    column = find_column(table.others, [by])
    if column is None and not truth.groups:
        raise InputError(
            f"neither the labels nor the predictions have a column {by!r} to group by",
            got=f"predictions with {shown(table.others.column_names)}",
        )
    return texts(table.others, column) if column else [None if n is None else truth.groups[n] for n in matching.names]


def _members(
    table: PredictionTable, question: Question, truth: Truth, matching: Matching, used: Rows
) -> list[str | None]:
    """The group of each row that is used; empty where no column groups them."""
    return [] if question.by is None else list(compress(members_of(table, question.by, truth, matching), used))


def _clusters(members: Sequence[str | None]) -> npt.NDArray[np.int64] | None:
    """Each row's group as a number from 0, where all have one and there are enough to draw among."""
    return None if None in members else numbered_groups(np.array(members))


def _over_groups(
    table: PredictionTable, used: Rows, indices: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64], seed: int
) -> Interval:
    """The interval of the fusion's UA, groups drawn."""
    classes = len(table.labels)
    cells = indices * classes + table.models[FUSED][used].argmax(axis=1)
    return recall_interval(counts_by_group(cells, classes**2, clusters).reshape(-1, classes, classes), seed=seed)


def _groups(
    table: PredictionTable, members: Sequence[str | None], used: Rows, indices: npt.NDArray[np.int64]
) -> tuple[Group, ...]:
    """The fusion's figures for each group, in the order of their names; recordings without one are "none"."""
    groups = np.array([member or "none" for member in members])
    predicted = table.models[FUSED][used].argmax(axis=1)
    found = []
    for group in sorted(set(groups.tolist())):
        here = groups == group
        correct = int((predicted[here] == indices[here]).sum())
        clips = int(here.sum())
        ua = unweighted_average_recall(indices[here], predicted[here], len(table.labels))
        found.append(Group(group, clips, correct, correct / clips, wilson_interval(correct, clips), ua))
    return tuple(found)


def _described(predictions: str, table: PredictionTable, question: Question) -> str:
    """Where the truth came from, and what was done with it, in words."""
    if question.labels is None:
        parts = [f"column {question.column} of {predictions}"]
    elif question.labels.lower() in NAMED:
        title = {"ravdess": "RAVDESS"}.get(question.labels.lower()) or CORPORA[question.labels.lower()].title
        parts = [f"{title} file names"]
    else:
        parts = [f"column {question.column} of {question.labels}" if question.column else question.labels]
    if question.split is not None:
        parts.append(f"part {question.part} of {read_part(question.split, question.part)[0]}")
    parts += [f"{label} counted as {other}" for label, other in (question.label_map or {}).items() if other]
    if question.only is not None:
        parts.append(f"answers among {', '.join(table.labels)}")
    return ", ".join(parts)


def _nothing(
    predictions: str | Path, table: PredictionTable, described: str, coverage: Coverage, missing: Sequence[str]
) -> InputError:
    have = f"{coverage.rows} rows" + (f" like {table.keys[0]!r}" if table.keys else "")
    if coverage.outside_part:
        have += f", {coverage.outside_part} of them outside the part"
    if coverage.failed:
        counts = ", ".join(f"{status} {count}" for status, count in coverage.unscored.items())
        have += f", {coverage.failed} of them with a truth but not scored ({counts})"
    if coverage.left_out:
        labels = ", ".join(f"{label!r} {count}" for label, count in coverage.left_out.items())
        have += f", {sum(coverage.left_out.values())} of them with a label that is no answer ({labels})"
        return InputError(
            f"no clip of {predictions} can be evaluated with {described}",
            got=have,
            expected=f"labels like {', '.join(table.labels)}",
            remedy="Say what the labels mean: --map anger=angry,exc=happy, or name a corpus: --map iemocap.",
        )
    return InputError(
        f"no clip of {predictions} can be evaluated with {described}",
        got=have,
        expected=f"scored recordings like {missing[0]!r}" if missing else "scored recordings with a known label",
        remedy="Paths are relative to the folder given to `ser-batch run`; base names count where they are unique.",
    )
