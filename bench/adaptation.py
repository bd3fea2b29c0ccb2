"""`bench adaptation`: what `ser-batch adapt` gains and loses on labelled corpora.

The corpora are taken as they are, mostly neutral, and with one-sided speakers.

Each figure is that of the command's own path: a table of predictions is cut to the rows of a draw, adapted, and
measured by `ser_batch.evaluation`, the answers being limited to the labels that the corpus has, before and after.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.adaptation.adapt import Adaptation
from ser_batch.adaptation.table import adapt_table
from ser_batch.arrow import strings, take
from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.evaluation.evaluate import Question, find_truth
from ser_batch.evaluation.label_map import LabelMap
from ser_batch.evaluation.metrics import calibration_error, reliability, unweighted_average_recall
from ser_batch.evaluation.predictions import PredictionTable, among, read_predictions

WHOLE, MOSTLY_NEUTRAL, TWO_EACH = "as it is", "75 % neutral", "two emotions per speaker"
NEUTRAL, NEUTRAL_SHARE = "neutral", 0.75
_log = logging.getLogger(__name__)
SPEAKERS = ("speaker", "speaker_id")
FEW = 60
"""Labelled rows that a method may see; figures are of the other rows."""
FEWEST = 100
"""Rows of a draw, below which there is nothing left to measure on."""
Indices = npt.NDArray[np.int64]


class Method(NamedTuple):
    """A way to use `ser-batch adapt`; TRUE in the shares stands for those that the draw really has."""

    name: str
    shares: str | None
    decide: str = "equal"
    by_speaker: bool = False
    min_rows: int = 50
    labelled: bool = False


TRUE = "TRUE"
METHODS = (
    Method("equal shares", "equal"),
    Method("equal shares, by speaker", "equal", by_speaker=True),
    Method("true shares", TRUE),
    Method("true shares, by speaker", TRUE, by_speaker=True),
    Method("true shares, by speaker, no floor", TRUE, by_speaker=True, min_rows=1),
    Method("true shares, decided on them", TRUE, decide="stated"),
    Method(f"{FEW} rows", None, labelled=True),
    Method(f"{FEW} rows, their shares", "labels", labelled=True),
)


class Draw(NamedTuple):
    """UA, accuracy and calibration error before and after, of the rows whose labels a method did not see."""

    ua_before: float
    ua: float
    accuracy_before: float
    accuracy: float
    ece_before: float
    ece: float
    outcome: str
    """What was used of labelled rows (see `ser_batch.adaptation.few_labels`), `adapted`, or why nothing was done."""


@dataclass(frozen=True)
class Measured:
    """One method on the draws of one corpus."""

    corpus: str
    bundle: str
    shares: str
    """WHOLE, MOSTLY_NEUTRAL or TWO_EACH."""
    method: str
    rows: int
    draws: dict[str, list[Any]]
    """Field of `Draw` -> its value in each draw."""


@dataclass(frozen=True)
class Corpus:
    """Predictions of a corpus with the truth of each row."""

    name: str
    table: pa.Table
    """The rows with a known label, as the run wrote them, with a column `speaker`."""
    truth: tuple[str, ...]
    bundle: str


def read_corpus(name: str, predictions: str, labels: str) -> Corpus:
    """Read a corpus.

    Args:
        labels: a table or a corpus, as `ser-batch evaluate --labels` takes them; `-`: the column `given_label` of the
            predictions. Speakers are in a column of `SPEAKERS` of either; without one, there are none.
    """
    found, source = read_predictions(predictions), pq.read_table(predictions, partitioning=None)
    question = Question(None if labels == "-" else labels, "label" if labels == "-" else None)
    stated, voices = _stated(predictions, found, question)
    meaning = LabelMap(found.labels, {})
    truth = [label and meaning(label) for label in stated]
    rows = [row for row, label in enumerate(truth) if label and found.statuses[row] == "ok"]
    if len(rows) < FEWEST:
        raise InputError(f"{predictions} has too few labelled rows", got=len(rows), expected=f"{FEWEST} or more")
    plain = source.drop_columns([column for column in SPEAKERS if column in source.column_names])
    table = take(plain.append_column("speaker", strings(voices)), rows)
    return Corpus(name, table, tuple(truth[row] or "" for row in rows), found.provenance.get("bundle_id", "unknown"))


def _stated(predictions: str, found: PredictionTable, question: Question) -> tuple[list[str | None], list[str | None]]:
    """Label and speaker of each row, in the words of the corpus."""
    for by in (*SPEAKERS, None):
        asked = Question(question.labels, question.column, by=by)
        try:
            truth, matching = find_truth(predictions, found, asked)
        except InputError:
            if by is None:
                raise
            continue
        labels = [None if name is None else truth.labels[name] for name in matching.names]
        if by in found.others.column_names:
            return labels, [str(voice) for voice in found.others[by].to_pylist()]
        if by is None or truth.groups:
            return labels, [truth.groups.get(name or "") for name in matching.names]
    raise AssertionError("the last one has no speakers and returns")


def measure_adaptation(corpus: Corpus, draws: int) -> Iterator[Measured]:
    """Every method on the corpus as it is, and on `draws` draws of each other kind that it has rows for."""
    for shares in (WHOLE, MOSTLY_NEUTRAL, TWO_EACH):
        _log.info(f"{corpus.name}, {shares}: {draws} draws")
        found: dict[str, list[Draw]] = {}
        rows = np.arange(0)
        for number in range(draws):
            rng = np.random.default_rng(number)
            rows = _drawn(corpus, shares, rng)
            few = np.sort(rng.permutation(rows)[:FEW])
            # Whole, a corpus differs from draw to draw in the labelled rows alone.
            methods = [each for each in METHODS if each.labelled or not number or shares != WHOLE]
            if len(rows) >= FEWEST:
                for method, draw in _methods(corpus, methods, rows, few):
                    found.setdefault(method.name, []).append(draw)
        for name, measured in found.items():
            columns = {field: [getattr(draw, field) for draw in measured] for field in Draw._fields}
            yield Measured(corpus.name, corpus.bundle, shares, name, len(rows), columns)


def _drawn(corpus: Corpus, shares: str, rng: np.random.Generator) -> Indices:
    """Rows of a draw: all; all that are neutral, and others that are a quarter; two labels of each speaker."""
    rows, neutral = np.arange(len(corpus.truth)), np.array([label == NEUTRAL for label in corpus.truth])
    if shares == WHOLE:
        return rows
    if shares == TWO_EACH:
        return rows[_of_two(corpus, rng)]
    others = round(neutral.sum() * (1 - NEUTRAL_SHARE) / NEUTRAL_SHARE)
    return np.sort(np.r_[rows[neutral], rng.permutation(rows[~neutral])[:others]])


def _of_two(corpus: Corpus, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Whether a row (N,) has one of the two labels drawn for its speaker; none where speakers are not known."""
    truth, voices = np.array(corpus.truth), np.array(corpus.table["speaker"].to_pylist(), dtype=object)
    chosen = np.zeros(len(truth), dtype=bool)
    for voice in sorted({voice for voice in voices if voice is not None}):
        here = voices == voice
        labels = np.unique(truth[here])
        chosen |= here & np.isin(truth, rng.permutation(labels)[:2])
    return chosen


def _methods(corpus: Corpus, methods: Sequence[Method], rows: Indices, few: Indices) -> Iterator[tuple[Method, Draw]]:
    with tempfile.TemporaryDirectory() as folder:
        predictions, labels, out = (str(Path(folder) / f"{name}.parquet") for name in ("predictions", "few", "adapted"))
        pq.write_table(take(corpus.table, rows), predictions)
        seen = {"file": take(corpus.table, few)["file"].to_pylist(), "label": [corpus.truth[row] for row in few]}
        pq.write_table(pa.table({name: strings(cells) for name, cells in seen.items()}), labels)
        for method in methods:
            if method.by_speaker and corpus.table["speaker"].null_count:
                continue
            unseen = np.setdiff1d(rows, few) if method.labelled else rows
            before = after = _figures(corpus, predictions, unseen)
            try:
                fitted = adapt_table(predictions, out, _asked(corpus, method, rows, labels), overwrite=True).fitted
                outcome = fitted.correction.kept if fitted.correction else "adapted"
                after = _figures(corpus, out, unseen)
            except InputError as error:
                outcome = str(error)
            yield (
                method,
                Draw(*(round(value, 5) for pair in zip(before, after, strict=True) for value in pair), outcome),
            )


def _asked(corpus: Corpus, method: Method, rows: Indices, labels: str) -> Adaptation:
    occur, known = sorted(set(corpus.truth)), _labels(corpus.table)
    shares = method.shares
    if shares == TRUE:
        shares = true_shares({label: sum(corpus.truth[row] == label for row in rows) for label in occur}, known)
    elif shares is not None:
        shares = ",".join([shares, *_absent(occur, known)])
    by = "speaker" if method.by_speaker else None
    return Adaptation(shares, method.decide, by, method.min_rows, labels if method.labelled else None)


def true_shares(counts: Mapping[str, int], labels: Sequence[str]) -> str:
    """The shares of rows, as `ser-batch adapt --shares` takes them.

    Args:
        counts: rows of each label that may occur.
        labels: of the model.
    """
    # A share of exactly 0 is a stronger statement than a small draw can make.
    total = sum(counts.values()) + len(counts)
    return ",".join([*(f"{label}={(n + 1) / total!r}" for label, n in counts.items()), *_absent(counts, labels)])


def _absent(occur: Collection[str], labels: Sequence[str]) -> list[str]:
    return [f"{label}=0" for label in labels if label not in occur]


def _figures(corpus: Corpus, predictions: str, rows: Indices) -> tuple[float, float, float]:
    """UA, accuracy and calibration error on the rows of a file that are among `rows` of the corpus."""
    found = read_predictions(predictions)
    table = among(found, sorted(set(corpus.truth)))
    place = {file: row for row, file in enumerate(found.files)}
    here = [place[corpus.table["file"][int(row)].as_py()] for row in rows]
    truth = np.array([table.labels.index(corpus.truth[row]) for row in rows])
    rows_here = table.models[FUSED][here]
    right = rows_here.argmax(axis=1) == truth
    ua = unweighted_average_recall(truth, rows_here.argmax(axis=1), len(table.labels))
    return ua, float(right.mean()), calibration_error(reliability(right, rows_here.max(axis=1)))


def _labels(table: pa.Table) -> list[str]:
    return list(json.loads(table.schema.metadata[b"ser_batch.labels"]))
