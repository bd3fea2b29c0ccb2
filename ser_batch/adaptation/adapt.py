"""Answers fitted to an archive: by the shares of its labels, by a few labelled rows, or by both.

Every row is answered by softmax(log p / T + b): T from labelled rows, b from the shares, from labelled rows and from
how it is to be decided. `bias` finds the part that the shares ask for, `few_labels` the part that labelled rows do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.adaptation.archive import SPEAKERS, Archive
from ser_batch.adaptation.few_labels import Correction, correction
from ser_batch.adaptation.shares import bias_for_shares, biased, counted_shares, parse_shares
from ser_batch.errors import InputError
from ser_batch.evaluation.evaluate import Question, find_truth
from ser_batch.evaluation.label_map import LabelMap, parse_labels
from ser_batch.evaluation.predictions import places_among
from ser_batch.evaluation.truth import texts
from ser_batch.recordings.reader import find_column, read_table, shown

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]
ON_EQUAL, ON_STATED = "equal", "stated"


@dataclass(frozen=True)
class Adaptation:
    """What an archive's owner knows of it, and how its rows are to be decided."""

    shares: str | None = None
    """See `shares.parse_shares`; None: not known, and nothing is done for them."""
    decide: str = ON_EQUAL
    """`ON_EQUAL`: as if every label were equally common, which finds the rare ones; `ON_STATED`: by the shares."""
    by: str | None = None
    """Column; each of its values has a bias of its own."""
    min_rows: int = 50
    """Scored rows below which a group takes the archive's bias."""
    labels: str | None = None
    """Table of a few labelled recordings; this and the next three as in `evaluation.evaluate.Question`."""
    label_column: str | None = None
    label_map: Mapping[str, str] | None = None
    corpora: Sequence[str] = ()
    speaker: str | None = None
    """Column that tells speakers apart in cross-validation; None: one of `SPEAKERS`, where there is one."""
    among: str | None = None
    """Labels that can occur, with commas between them; the others are no answer. None: all can."""

    def __post_init__(self) -> None:
        if self.shares is None and self.among is None and not self.labelled:
            raise InputError("nothing says how to adapt", remedy="Give --shares, --among or --labels, or several.")
        if self.shares is None and (self.by or self.decide == ON_STATED):
            raise InputError(f"{'--by' if self.by else '--decide stated'} needs shares", remedy="Give --shares, too.")

    @property
    def labelled(self) -> bool:
        """Whether some rows have a label."""
        return self.labels is not None or self.label_column is not None


@dataclass(frozen=True)
class Fitted:
    """What an adaptation found."""

    labels: tuple[str, ...]
    shares: tuple[float, ...] | None
    """(C,) that the mean probability was made equal to."""
    decide: str
    temperature: float
    bias: Floats
    """(C,) of the archive; -inf for a label that is no answer."""
    groups: dict[str, Floats]
    """The bias of each group that has its own."""
    small_groups: int
    """Groups that took the archive's."""
    correction: Correction | None
    """From labelled rows; its temperature and bias are in those above."""


def fit(archive: Archive, asked: Adaptation) -> Fitted:
    """Find the temperature, the bias of the archive and that of its groups.

    Raises:
        InputError: the shares or the labels cannot be read, or do not fit the archive.
    """
    meaning = LabelMap(archive.labels, asked.label_map or {}, asked.corpora)
    if meaning.merged():
        raise InputError(
            "--map merges labels of the model, which an adapted table keeps apart",
            got=", ".join(f"{a}={b}" for a, b in meaning.merged().items()),
            remedy="Say which label does not occur: --shares calm=0.",
        )
    may_occur = _may_occur(archive.labels, meaning, parse_labels(asked.among))
    truth, voices = _labelled(archive, asked, meaning) if asked.labelled else (None, [])
    rows = None if truth is None else np.flatnonzero(truth >= 0)
    known = None if truth is None else truth[rows]
    shares = None if asked.shares is None else parse_shares(asked.shares, meaning, known, may_occur)
    members = archive.column(asked.by) if asked.by else None
    bias, groups = _evidence(archive, shares, may_occur, members, asked.min_rows)
    found = None
    if rows is not None and known is not None:
        with np.errstate(divide="ignore"):
            evidence = np.log(biased(archive.probabilities[rows], _of_rows(bias, groups, members, rows)))
        prior = counted_shares(known, np.isfinite(bias)) if shares is None else shares
        found = correction(evidence, known, prior, [voices[row] for row in rows])
    temperature, shift = (1.0, np.zeros(len(bias))) if found is None else (found.temperature, np.array(found.bias))
    if asked.decide == ON_STATED and shares is not None:
        shift = shift + _log(shares)
    return Fitted(
        archive.labels,
        None if shares is None else tuple(shares.tolist()),
        asked.decide,
        temperature,
        bias / temperature + shift,
        {name: own / temperature + shift for name, own in groups.items()},
        0 if members is None else len({member for member in members if member}) - len(groups),
        found,
    )


def apply(archive: Archive, fitted: Fitted, members: Sequence[str | None] | None) -> npt.NDArray[np.float32]:
    """The adapted probabilities (N, C), NaN where a row was not scored.

    Args:
        members: (N,) the group of each row; None: there are no groups.
    """
    answers = np.full_like(archive.probabilities, np.nan)
    for rows in np.array_split(np.flatnonzero(archive.ok), 1 + len(archive.ok) // 65536):
        bias = _of_rows(fitted.bias, fitted.groups, members, rows)
        answers[rows] = biased(archive.probabilities[rows], bias, fitted.temperature)
    return answers


def _may_occur(labels: Sequence[str], meaning: LabelMap, among: Sequence[str] | None) -> Kept:
    """(C,) which labels can be an answer: those `among`, read as `evaluate` reads them; None: all."""
    may_occur = np.full(len(labels), among is None)
    if among is not None:
        may_occur[places_among(labels, [meaning(label) or label for label in among])] = True
    return may_occur


def _evidence(
    archive: Archive, shares: Floats | None, may_occur: Kept, members: Sequence[str | None] | None, min_rows: int
) -> tuple[Floats, dict[str, Floats]]:
    """The bias (C,) that makes answers those of equally common labels: of the archive, and of each large group."""
    if shares is None:
        return np.where(may_occur, 0.0, -np.inf), {}

    def found(rows: npt.NDArray[np.bool_]) -> Floats:
        bias = bias_for_shares(archive.probabilities[rows], shares)
        held = shares > 0
        bias[held] -= np.log(shares[held])
        bias[held] -= bias[held].mean()
        return bias

    if members is None:
        return found(archive.ok), {}
    names, numbers = np.unique([member or "" for member in members], return_inverse=True)
    counts = np.bincount(numbers[archive.ok], minlength=len(names))
    large = [number for number, name in enumerate(names) if name and counts[number] >= min_rows]
    return found(archive.ok), {str(names[number]): found(archive.ok & (numbers == number)) for number in large}


def _of_rows(bias: Floats, groups: Mapping[str, Floats], members: Sequence[str | None] | None, rows: Indices) -> Floats:
    """The bias of rows: (C,), or (R, C) where groups have their own."""
    if members is None or not groups:
        return bias
    return np.stack([groups.get(members[row] or "", bias) for row in rows])


def _log(shares: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(shares)


def _labelled(archive: Archive, asked: Adaptation, meaning: LabelMap) -> tuple[Indices, list[str]]:
    """The label (N,) of each row, -1 where none is known, and who speaks in it: where nobody says, its recording."""
    speaker = asked.speaker or next((name for name in SPEAKERS if archive.has(name)), None)
    in_file = asked.labels is not None and Path(asked.labels).is_file()
    if speaker is None and asked.labels and in_file:
        speaker = find_column(read_table(asked.labels), SPEAKERS)
    elif speaker is not None and not in_file:
        archive.check(speaker)
    handed = [asked.label_column, f"given_{asked.label_column}"] if asked.labels is None else []
    table, row_of = archive.recordings([name for name in (speaker, *handed) if name and archive.has(name)])
    truth, matching = find_truth(archive.path, table, Question(asked.labels, asked.label_column, by=speaker))
    stated = [None if name is None else truth.labels[name] for name in matching.names]
    meant = [None if label is None else meaning(label) for label in stated]
    if not any(meant):
        raise InputError(
            "no labelled row is one of the predictions", got=f"labels {shown(sorted(set(filter(None, stated))))}"
        )
    if speaker is None:
        voices = list(table.keys)
    elif archive.has(speaker):
        voices = [voice or key for voice, key in zip(texts(table.others, speaker), table.keys, strict=True)]
    else:
        voices = [truth.groups.get(name or "") or key for name, key in zip(matching.names, table.keys, strict=True)]
    indices = np.array([archive.labels.index(label) if label else -1 for label in meant])[row_of]
    return np.where(archive.ok, indices, -1), [voices[row] for row in row_of]
