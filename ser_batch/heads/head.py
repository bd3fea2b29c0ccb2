"""A head for labels of one's own: fitted, judged by cross-validation, and written as a bundle beside its base."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ser_batch
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.head import Head
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.bundle.reference import Reference
from ser_batch.bundle.writing import MODEL_CARD_FILE, write_bundle
from ser_batch.evaluation.evaluate import Question
from ser_batch.evaluation.metrics import (
    Evaluation,
    confusion_matrix,
    evaluate,
    recall_interval,
    unweighted_average_recall,
)
from ser_batch.evaluation.statistics import Interval, percent
from ser_batch.heads.logistic import FOLDS, Linear, choose, cross_validated, fit
from ser_batch.heads.rows import LabelledRows, read_rows
from ser_batch.text import aligned, terminal_safe

_PRECISIONS = "precisions/"


@dataclass(frozen=True)
class Share:
    """UA of an answer that nothing was fitted for."""

    ua: float
    interval: Interval
    """Percentile bootstrap over rows, 95 %."""


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head, and what is known of it."""

    head: Head
    labels: tuple[str, ...]
    evaluation: Evaluation
    """Cross-validated: of each row by a head that saw neither it nor its group."""
    counts: tuple[int, ...]
    """Rows of each label."""
    folds: int
    by: str | None
    """Column whose values are kept apart; None: rows are, by chance."""
    groups: int | None
    penalty: float
    majority: float
    """Accuracy of always giving the label with the most rows; its UA is one over the number of labels."""
    default: Share | None
    """The base bundle's own answer; None: the labels mean nothing to it."""
    unsaid: tuple[str, ...]
    """Labels that it cannot give; they count as wrong."""
    left_out: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Every figure, as plain JSON types."""
        plain = {name: getattr(self, name) for name in ("folds", "by", "groups", "penalty", "majority", "left_out")}
        default = None if self.default is None else asdict(self.default)
        own = self.evaluation.to_dict()
        return plain | {"counts": list(self.counts), "unsaid": list(self.unsaid), "default": default, "head": own}


def fit_head(predictions: str | Path, bundle: Bundle, question: Question) -> FittedHead:
    """Fit a head to labelled rows of predictions with embeddings, and judge it by cross-validation.

    Args:
        bundle: that made the predictions.
        question: see `rows.read_rows`.

    Raises:
        InputError: the predictions or the labels do not fit, or there are too few.
    """
    bundle.embedding()
    rows = read_rows(predictions, bundle, question)
    classes = len(rows.labels)
    probabilities, folds = cross_validated(rows.inputs, rows.truth, rows.groups, classes)
    penalty = choose(rows.inputs, rows.truth, rows.groups, classes, FOLDS)
    (linear,) = fit(rows.inputs, rows.truth, classes, [penalty])
    counts = np.bincount(rows.truth, minlength=classes)
    return FittedHead(
        head=_matrix(linear, bundle),
        labels=rows.labels,
        evaluation=evaluate(rows.truth, probabilities, rows.labels),
        counts=tuple(counts.tolist()),
        folds=folds,
        by=rows.by,
        groups=None if rows.groups is None else len(np.unique(rows.groups)),
        penalty=penalty,
        majority=float(counts.max() / counts.sum()),
        default=own_answer(rows),
        unsaid=rows.unsaid,
        left_out=rows.left_out,
    )


def _matrix(linear: Linear, bundle: Bundle) -> Head:
    branches = tuple(branch.name for branch in bundle.manifest.branches)
    return Head(linear.weight, linear.bias, branches, bundle.embedding().size)


def own_answer(rows: LabelledRows) -> Share | None:
    """UA of what the bundle says of labelled rows by itself; None: their labels mean nothing to it."""
    if rows.default is None:
        return None
    classes = len(rows.labels)
    # One class more stands for every wrong answer.
    said = np.where(rows.default, rows.truth, classes)
    interval = recall_interval(confusion_matrix(rows.truth, said, classes + 1))
    return Share(unweighted_average_recall(rows.truth, said, classes + 1), interval)


def write_head(
    fitted: FittedHead, bundle: Bundle, out: Path, *, name: str | None = None, overwrite: bool = False
) -> Bundle:
    """Write a bundle at `out` of `bundle`'s graphs with `fitted` for its answer.

    Its graphs of lower precision come along; compiled engines do not, since they belong to one bundle.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    manifest, reference = bundle.manifest, bundle.reference()
    members = [branch.file for branch in manifest.branches]
    members += [member for member in manifest.files if member.startswith(_PRECISIONS)]
    answer = fitted.head(reference.branches, reference.embedding)
    return write_bundle(
        out,
        name=name or _plain(out),
        labels=fitted.labels,
        branch_labels=None if fitted.labels == bundle.branch_labels else bundle.branch_labels,
        clip=manifest.clip,
        branches=manifest.branches,
        fusion=fitted.head,
        reference=Reference(reference.waveform, reference.branches, answer, reference.embedding),
        files={member: bundle.path(member) for member in members},
        provenance=_provenance(fitted, bundle),
        metrics={"cross_validation": _summary(fitted)},
        licence=manifest.licence,
        model_card=_card(fitted, bundle),
        overwrite=overwrite,
    )


def _plain(out: Path) -> str:
    """The folder's name as a bundle's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", out.resolve().name).strip("-._") or "head"


def _provenance(fitted: FittedHead, bundle: Bundle) -> dict[str, Any]:
    base = {"id": bundle.id, "sha256": bundle.sha256, "provenance": dict(bundle.manifest.provenance)}
    return {
        "made_by": f"ser-batch head {ser_batch.__version__}",
        "labels": list(fitted.labels),
        "rows": dict(zip(fitted.labels, fitted.counts, strict=True)),
        "apart_by": fitted.by,
        "groups": fitted.groups,
        "penalty": fitted.penalty,
        "inputs": [EMBEDDING, *(f"log {branch}" for branch in fitted.head.branches)],
        "base": base,
    }


def _summary(fitted: FittedHead) -> dict[str, Any]:
    found = fitted.evaluation
    return {
        "folds": fitted.folds,
        "clips": found.clips,
        "ua": found.ua,
        "ua_interval": list(found.ua_interval),
        "accuracy": found.accuracy,
        "accuracy_interval": list(found.accuracy_interval),
        "ua_of_majority": 1 / len(fitted.labels),
        "ua_of_base": None if fitted.default is None else fitted.default.ua,
    }


def _beside(fitted: FittedHead) -> str:
    return "" if fitted.default is None else f"; the base's own answer: {100 * fitted.default.ua:.1f} %"


def _card(fitted: FittedHead, bundle: Bundle) -> str:
    found, apart = fitted.evaluation, f"column {fitted.by} apart" if fitted.by else "rows apart by chance"
    rows = [
        f"| {terminal_safe(scores.label)} | {scores.support} | {100 * scores.recall:.1f} % |"
        for scores in found.classes
    ]
    card = (bundle.root / MODEL_CARD_FILE).read_text(encoding="utf-8")
    return "\n".join(
        [
            f"# A head of {len(fitted.labels)} labels on {bundle.id}",
            "",
            f"Fitted by `ser-batch head` to {found.clips} labelled recordings. The graphs are the base bundle's; a",
            "logistic regression over its embedding and the branches' log-probabilities takes the fusion's place.",
            "",
            f"UA {100 * found.ua:.1f} % [{100 * found.ua_interval.low:.1f}, {100 * found.ua_interval.high:.1f}], "
            f"cross-validated in {fitted.folds} folds, {apart}; always the same label: "
            f"{100 / len(fitted.labels):.1f} %{_beside(fitted)}.",
            "",
            "| label | recordings | recall, cross-validated |",
            "|---|---:|---:|",
            *rows,
            "",
            "It knows what these recordings have in common, their microphone and language among it: on others measure",
            "it again. Each label counts alike in it, however rare. Below is the base bundle's card; its figures are",
            "those of other labels, its licence and limits hold here, too.",
            "",
            "---",
            "",
            card,
        ]
    )


def format_head(fitted: FittedHead, base: Bundle) -> str:
    """Head lines, and a row for each answer; percentages with 95 % intervals."""
    found = fitted.evaluation
    apart = f"{fitted.groups} of column {fitted.by}" if fitted.by else "none known: rows are apart by chance"
    head = [
        ("base", base.id),
        ("rows", ", ".join(f"{label} {count}" for label, count in zip(fitted.labels, fitted.counts, strict=True))),
        *(("", f"{count} {reason}") for reason, count in fitted.left_out.items()),
        ("speakers", apart),
        ("folds", f"{fitted.folds}, penalty {fitted.penalty:.2g}"),
    ]
    rows = [
        ("", "UA", "accuracy"),
        ("head, cross-validated", percent(found.ua, found.ua_interval), f"{100 * found.accuracy:.2f}"),
        ("always the same label", f"{100 / len(fitted.labels):.2f}", f"{100 * fitted.majority:.2f}"),
    ]
    if fitted.default is not None:
        rows.append(("the base's own answer", percent(fitted.default.ua, fitted.default.interval), ""))
    text = "\n".join(f"{name:<9} {value}" for name, value in head) + "\n\n" + aligned(rows) + "\n" + _advice(fitted)
    return "\n".join(terminal_safe(line.rstrip()) for line in text.split("\n"))


def _advice(fitted: FittedHead) -> str:
    lines = []
    if fitted.default is None:
        lines.append("The labels mean nothing to the base: --map OWN=ITS,… says what they do, for a comparison.")
    elif fitted.unsaid:
        lines.append(f"The base has no answer for {', '.join(fitted.unsaid)}: there it counts as wrong.")
    own = fitted.default.ua if fitted.default is not None else 0.0
    if own >= fitted.evaluation.ua:
        lines.append(
            "The base's own answer is as good or better: use the base, or label more recordings, of more speakers."
        )
    elif fitted.evaluation.ua_interval.low <= max(1 / len(fitted.labels), own):
        lines.append("The head is not clearly better than what costs nothing: label more recordings, of more speakers.")
    if fitted.by is None:
        lines.append("A speaker may be on both sides of a fold, which flatters: name the column, --by COLUMN.")
    return "\n".join(lines)
