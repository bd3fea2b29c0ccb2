"""The rows that a head is fitted to: labelled recordings of a predictions file, with what the bundle gave for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.arrow import take
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.head import head_inputs
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.errors import InputError
from ser_batch.evaluation.evaluate import Question, find_truth, members_of
from ser_batch.evaluation.label_map import NAMED, LabelMap
from ser_batch.evaluation.predictions import PredictionTable, among, merged, read_predictions
from ser_batch.heads.logistic import Indices, Matrix
from ser_batch.recordings.reader import find_column, read_table, shown

ENOUGH = 10
"""Rows of each label that it takes."""
SPEAKER = "speaker"
"""Column that tells rows apart unless another one is named."""


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """N rows with a label, in the order of the predictions."""

    labels: tuple[str, ...]
    """L, in the order of their names."""
    truth: Indices
    """(N,) indices of `labels`."""
    inputs: Matrix
    """(N, D + K·C); see `ser_batch.bundle.head.head_inputs`."""
    groups: Indices | None
    """(N,) who speaks, by number; None: not known."""
    by: str | None
    """Column that says so."""
    default: npt.NDArray[np.bool_] | None
    """(N,) whether the bundle's own answer, among the labels that mean something to it, is right; None: fewer than two
    of them do."""
    unsaid: tuple[str, ...]
    """Labels that the bundle's own answer cannot come to."""
    left_out: dict[str, int]
    """Why a row of the predictions is not among them -> how many."""


def read_rows(predictions: str | Path, bundle: Bundle, question: Question) -> LabelledRows:
    """Match labels with predictions that hold embeddings.

    Args:
        bundle: that made the predictions.
        question: where the labels are, what they mean to the bundle (to nothing: rows with that label are left out),
            and the column that says who speaks; None: `SPEAKER`, where there is one.

    Raises:
        InputError: the predictions are of another bundle or hold no embeddings or branches, or the rows are too few.
    """
    table = read_predictions(predictions)
    _check_origin(predictions, table, bundle)
    by = question.by or _speaker_column(table, question)
    question = Question(question.labels, question.column, question.label_map, question.corpora, by=by)
    truth, matching = find_truth(str(predictions), table, question)
    stated = [None if name is None else truth.labels[name] for name in matching.names]
    dropped = {left for left, right in (question.label_map or {}).items() if not right}
    known = np.array([label is not None and label not in dropped for label in stated], dtype=bool)
    used = known & table.ok
    kept = [label for label, use in zip(stated, used, strict=True) if use and label is not None]
    labels = tuple(sorted(set(kept)))
    members = members_of(table, by, truth, matching) if by is not None else None
    groups = None if members is None else _numbered([m for m, use in zip(members, used, strict=True) if use])
    indices = np.array([labels.index(label) for label in kept], dtype=np.int64)
    _check_enough(str(predictions), labels, indices, groups, by)
    default, unsaid = _default_answers(table, question, labels, used, indices)
    why = {
        "have no label": sum(label is None for label in stated),
        "have a label that is left out": sum(label in dropped for label in stated),
        "were not scored": int((known & ~table.ok).sum()),
        "are labelled and have no row": len(matching.missing),
    }
    left_out = {reason: count for reason, count in why.items() if count}
    return LabelledRows(labels, indices, _inputs(table, bundle, used), groups, by, default, unsaid, left_out)


def _check_origin(predictions: str | Path, table: PredictionTable, bundle: Bundle) -> None:
    if table.provenance.get("bundle_sha256") != bundle.sha256:
        raise InputError(
            f"{predictions} was not made by this bundle",
            got=table.provenance.get("bundle_id", "a file without its provenance"),
            expected=bundle.id,
            remedy="Name the bundle that made it: --bundle DIR.",
        )
    if EMBEDDING not in table.others.column_names:
        raise InputError(
            f"{predictions} holds no embeddings",
            got=shown(table.others.column_names),
            remedy="Make it again: ser-batch run … --embeddings.",
        )


def _speaker_column(table: PredictionTable, question: Question) -> str | None:
    """`SPEAKER` where the predictions or the table of labels have it."""
    if find_column(table.others, [SPEAKER]) is not None:
        return SPEAKER
    if question.labels is None or question.labels.lower() in NAMED:
        return None
    return SPEAKER if find_column(read_table(question.labels), [SPEAKER]) is not None else None


def _numbered(members: Sequence[str | None]) -> Indices:
    """Groups by number; whoever is not known is nobody else."""
    names = {name: number for number, name in enumerate(dict.fromkeys(members)) if name is not None}
    return np.array([names.get(m, len(members) + row) if m else len(members) + row for row, m in enumerate(members)])


def _check_enough(
    predictions: str, labels: Sequence[str], truth: Indices, groups: Indices | None, by: str | None
) -> None:
    counts = Counter(truth.tolist())
    few = [f"{label} {counts[index]}" for index, label in enumerate(labels) if counts[index] < ENOUGH]
    if len(labels) < 2 or few:
        raise InputError(
            f"too few labelled rows of {predictions} to learn from",
            got=", ".join(few) or f"{len(truth)} rows, of {len(labels)} label",
            expected=f"at least {ENOUGH} scored rows of each of two labels or more",
            remedy="Label more recordings, or leave a label out: --map LABEL=.",
        )
    for index, label in enumerate(labels):
        if groups is not None and len(np.unique(groups[truth == index])) < 2:
            raise InputError(
                f"all rows of label {label!r} are of one {by}, so it cannot be told from that {by}",
                expected=f"at least two of column {by} for each label",
                remedy="Label others, too, or leave the label out: --map LABEL=.",
            )


def _inputs(table: PredictionTable, bundle: Bundle, used: npt.NDArray[np.bool_]) -> Matrix:
    rows, size = np.flatnonzero(used), bundle.embedding().size
    vectors = take(table.others.select([EMBEDDING]), rows).column(0).combine_chunks()
    embedding = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    branches = []
    for branch in bundle.manifest.branches:
        if branch.name in table.models:
            branches.append(table.models[branch.name][used])
            continue
        names = [f"{branch.name}_p_{label}" for label in bundle.branch_labels]
        if not set(names) <= set(table.others.column_names):
            raise InputError(
                "the predictions lack the branches' own probabilities, which a head needs",
                expected=f"columns {names[0]}, …",
                remedy="Make them again without --no-branches.",
            )
        branches.append(np.stack([take(table.others.select([n]), rows).column(0).to_numpy() for n in names], axis=1))
    return head_inputs(branches, embedding)


def _default_answers(
    table: PredictionTable,
    question: Question,
    labels: Sequence[str],
    used: npt.NDArray[np.bool_],
    truth: Indices,
) -> tuple[npt.NDArray[np.bool_] | None, tuple[str, ...]]:
    """Whether the bundle's own answer is right, among labels that mean something to it; and the labels that do not."""
    said = {left: right for left, right in (question.label_map or {}).items() if right}
    meaning = LabelMap(table.labels, said, question.corpora)
    table = merged(table, meaning.merged()) if meaning.merged() else table
    targets = [meaning(label) for label in labels]
    answers = list(dict.fromkeys(target for target in targets if target is not None))
    unsaid = tuple(label for label, target in zip(labels, targets, strict=True) if target is None)
    if len(answers) < 2:
        return None, unsaid
    chosen = among(table, answers)
    said_by = chosen.models[FUSED][used].argmax(axis=1)
    # A label without a meaning is never right; of two with one meaning, either is.
    right = [chosen.labels[said] == targets[true] for said, true in zip(said_by, truth, strict=True)]
    return np.array(right, dtype=bool), unsaid
