"""A table of predictions with adapted answers, and in its metadata how they were made.

`p_<label>`, `label` and `score` are the adapted answer, so that whatever reads predictions reads that one; the model's
own stay as `unadapted_p_<label>`, `unadapted_label` and `unadapted_score`. All other columns are as they were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import ser_batch
from ser_batch.adaptation.adapt import ON_EQUAL, Adaptation, Fitted, apply, fit
from ser_batch.adaptation.archive import Archive, read_archive
from ser_batch.adaptation.few_labels import BOTH, FEWEST_EACH, NOTHING, TEMPERATURE, Correction
from ser_batch.arrow import numbers, words
from ser_batch.errors import OutputError
from ser_batch.evaluation.predictions import ADAPTATION, UNADAPTED
from ser_batch.output.destination import Output, check_output
from ser_batch.output.parquet import row_groups, write
from ser_batch.text import aligned, terminal_safe

GROUPS_TOLD = 1000
"""Groups whose bias is in the metadata; of more, it is the difference between the columns."""
_KEPT = {
    NOTHING: "nothing of them is used: by cross-validation neither a temperature nor a bias would have helped",
    TEMPERATURE: "a temperature is used, and no bias: by cross-validation, one would not have helped",
    BOTH: "a temperature and a bias are used",
}


@dataclass(frozen=True)
class Adapted:
    """What an adaptation did to a table."""

    fitted: Fitted
    rows: int
    scored: int
    changed: int
    """Rows whose label is another now."""
    mean_before: tuple[float, ...]
    """(C,) probability, over the scored rows."""
    said_before: tuple[float, ...]
    """Share of the scored rows with each label, as is `said_after`."""
    said_after: tuple[float, ...]


def adapt_table(
    predictions: str | os.PathLike[str], out: str | os.PathLike[str], asked: Adaptation, *, overwrite: bool = False
) -> Adapted:
    """Write to `out` the table `predictions`, a file or a folder of parts, with adapted answers.

    Raises:
        InputError: the predictions, the shares or the labels cannot be read, or do not fit.
        OutputError: `out` cannot be written, exists, or is `predictions`.
    """
    place = _place(predictions, out, overwrite=overwrite)
    archive = read_archive(predictions)
    fitted = fit(archive, asked)
    answers = apply(archive, fitted, archive.column(asked.by) if asked.by else None)
    write(place.file, _schema(archive.schema, fitted, asked), _tables(archive, answers, fitted, asked))
    place.render()
    before, after = (rows[archive.ok].argmax(axis=1) for rows in (archive.probabilities, answers))
    said = [np.bincount(labels, minlength=len(archive.labels)) / len(labels) for labels in (before, after)]
    return Adapted(
        fitted,
        rows=len(answers),
        scored=len(before),
        changed=int((before != after).sum()),
        mean_before=tuple(archive.probabilities[archive.ok].mean(axis=0, dtype=np.float64).tolist()),
        said_before=tuple(said[0].tolist()),
        said_after=tuple(said[1].tolist()),
    )


def _place(predictions: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool) -> Output:
    place = Output.parse(out)
    if place.keeps_parts:
        raise OutputError(f"{out} is a folder", expected="the name of a Parquet file")
    if str(place.file) in map(str, Output.parse(predictions).tables()):
        raise OutputError(
            f"{out} is what is to be adapted", remedy="Choose another --out: the model's own table stays."
        )
    check_output(place, overwrite=overwrite, can_be_resumed=False)
    return place


def _schema(own: pa.Schema, fitted: Fitted, asked: Adaptation) -> pa.Schema:
    """The columns of `own`, the model's answer once more before `status`, and the provenance."""
    answer = [own.field(name) for name in ("label", "score", *(f"p_{label}" for label in fitted.labels))]
    fields, place = list(own), own.names.index("status")
    fields[place:place] = [field.with_name(f"{UNADAPTED}_{field.name}") for field in answer]
    said = json.dumps(_provenance(fitted, asked), ensure_ascii=False)
    return pa.schema(fields, metadata={**(own.metadata or {}), ADAPTATION: said})


def _provenance(fitted: Fitted, asked: Adaptation) -> dict[str, Any]:
    """How the answers were made, as plain JSON types; the bias of a label that is no answer is null."""

    def plain(bias: npt.NDArray[np.float64]) -> list[float | None]:
        return [round(float(value), 6) if np.isfinite(value) else None for value in bias]

    found = fitted.correction
    return {
        "version": ser_batch.__version__,
        "rule": "softmax(log p / temperature + bias)",
        "asked": {
            **{"shares": asked.shares, "decide": asked.decide, "by": asked.by, "min_rows": asked.min_rows},
            **{
                "among": asked.among,
                "labels": asked.labels,
                "label_column": asked.label_column,
                "speaker": asked.speaker,
            },
        },
        "shares": None if fitted.shares is None else [round(share, 6) for share in fitted.shares],
        "temperature": round(fitted.temperature, 6),
        "bias": plain(fitted.bias),
        "groups": {name: plain(bias) for name, bias in list(fitted.groups.items())[:GROUPS_TOLD]},
        "groups_with_their_own": len(fitted.groups),
        "groups_too_small": fitted.small_groups,
        "labelled_rows": None if found is None else found.rows,
        "kept_of_labelled_rows": None if found is None else found.kept,
    }


def _tables(
    archive: Archive, answers: npt.NDArray[np.float32], fitted: Fitted, asked: Adaptation
) -> Iterator[pa.Table]:
    """The row groups of the table, each with its rows of `answers` (N, C)."""
    schema, start = _schema(archive.schema, fitted, asked), 0
    for part in row_groups(archive.tables, archive.schema.names):
        part = part.cast(archive.schema)
        rows = slice(start, start + len(part))
        start = rows.stop
        ok, found = archive.ok[rows], answers[rows]
        columns = {name: part[name] for name in part.column_names}
        columns |= {name: part[name.removeprefix(f"{UNADAPTED}_")] for name in schema.names if name not in columns}
        columns["label"] = words(found[ok].argmax(axis=1), archive.labels, ok)
        columns["score"] = numbers(found[ok].max(axis=1, initial=0), np.float32, ok)
        for index, label in enumerate(archive.labels):
            columns[f"p_{label}"] = numbers(found[ok, index], np.float32, ok)
        yield pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)


def format_adapted(adapted: Adapted, out: str) -> str:
    """A head, and a row of shares for each label."""
    fitted = adapted.fitted
    head = [("rows", f"{adapted.scored} scored, of {adapted.rows}; {adapted.changed} have another label now")]
    if fitted.shares is not None:
        decided = "as if all labels were equally common" if fitted.decide == ON_EQUAL else "by the stated shares"
        head.append(("decided", decided))
    absent = [label for label, bias in zip(fitted.labels, fitted.bias, strict=True) if not np.isfinite(bias)]
    if absent:
        head.append(("never", f"{', '.join(absent)}: no answer, with probability 0"))
    if fitted.groups or fitted.small_groups:
        small = f"; {fitted.small_groups} are too small and take the archive's" if fitted.small_groups else ""
        head.append(("groups", f"{len(fitted.groups)} have a bias of their own{small}"))
    if fitted.correction:
        head += _labelled(fitted.correction)
    head.append(("output", out))
    columns = ("label", "said before", "mean p before", "share stated", "bias", "said after")
    rows = [
        (
            *(label, f"{adapted.said_before[i]:.1%}", f"{adapted.mean_before[i]:.1%}"),
            "–" if fitted.shares is None else f"{fitted.shares[i]:.1%}",
            f"{fitted.bias[i]:+.2f}" if np.isfinite(fitted.bias[i]) else "no answer",
            f"{adapted.said_after[i]:.1%}",
        )
        for i, label in enumerate(fitted.labels)
    ]
    lines = [f"{name:<9} {value}" for name, value in head]
    return "\n".join(terminal_safe(line) for line in [*lines, "", *aligned([columns, *rows]).split("\n")])


def _labelled(found: Correction) -> list[tuple[str, str]]:
    losses = f"loss {found.loss_before:.3f} before, {found.loss_after:.3f} after, cross-validated"
    temperature = "" if found.kept == NOTHING else f", temperature {found.temperature:.2f}"
    lines = [("labels", f"{found.rows} rows: {_KEPT[found.kept]}"), ("", f"{losses}{temperature}")]
    if found.rarest < FEWEST_EACH:
        lines.append(
            ("", f"no bias was tried: a label has {found.rarest} of the rows, and it takes {FEWEST_EACH} of each")
        )
    return lines
