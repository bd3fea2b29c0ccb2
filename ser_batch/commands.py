"""What `ser-batch run`, `evaluate`, `adapt` and `head` do, as functions; see docs/api.md."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ser_batch.adaptation.adapt import Adaptation
from ser_batch.adaptation.table import Adapted, adapt_table
from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.writing import check_target
from ser_batch.evaluation.evaluate import Question, ServedEvaluation, evaluate_predictions
from ser_batch.evaluation.label_map import parse_map
from ser_batch.heads import head
from ser_batch.heads.head import FittedHead
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.run import run as run_pipeline
from ser_batch.pipeline.summary import RunSummary
from ser_batch.recordings.table import Recordings

Audio = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a recording, a glob, a URL or a table of recordings; or several."""


def given_audio(audio: Audio) -> tuple[str, ...]:
    """One or several, as `RunConfig` takes them."""
    return (os.fspath(audio),) if isinstance(audio, str | os.PathLike) else tuple(os.fspath(each) for each in audio)


def run(
    audio: Audio | Recordings,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> RunSummary:
    """Score recordings and write one row for each to `out`: what `ser-batch run` does.

    Args:
        audio: folders, recordings, globs, URLs, or tables of recordings.
        out: a file, or a folder of parts ("DIR/"), which appears whole at the end.
        progress: called after each batch with how far the run is; it may raise to stop the run.
        options: the other fields of `ser_batch.pipeline.config.RunConfig`, which the options of the command are named
            after: `bundle`, `window`, `resume`, `overwrite`, `max_errors`, ….

    Returns:
        what the run did; `print` shows it as the command does.

    Raises:
        SerError: anything that the user can cause; rows made before are kept for `resume=True`.
    """
    known = {field.name for field in dataclasses.fields(RunConfig)} - {"audio", "out"}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"run() has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    if options.get("bundle") is not None:
        options["bundle"] = Path(options["bundle"])
    config = RunConfig(audio if isinstance(audio, Recordings) else given_audio(audio), out, **options)
    return run_pipeline(config, None, lambda total: nullcontext(progress)).summary


def evaluate(
    predictions: str | os.PathLike[str],
    second: str | os.PathLike[str] | None = None,
    *,
    labels: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    label_map: str = "",
    among: Sequence[str] | None = None,
    by: str | None = None,
    split: str | os.PathLike[str] | None = None,
    part: str = "test",
    root: str | os.PathLike[str] | None = None,
) -> ServedEvaluation:
    """Measure predictions against the true labels, or two tables of them: what `ser-batch evaluate` does.

    Args:
        second: predictions of another model for the same recordings.
        labels: a corpus whose names say the label, or a table of labels; None: `label_column` of `predictions`.
        label_map: what labels mean, "exc=happy,fru="; as `--map`.
        among: labels that count as answers.
        by: column that groups recordings, such as speaker.
        split: a run's split.json, of which `part` is measured.
        root: of the run, where `labels` is segments of another tool.

    Returns:
        `models` ("fused" and each branch) with their figures, intervals and confusion matrices, `coverage`, `groups`,
        and with `second` the `comparison`; `to_dict()` has all as plain types.

    Raises:
        SerError: anything that the user can cause.
    """
    said, corpora = parse_map(label_map)
    question = Question(
        labels=None if labels is None else os.fspath(labels),
        column=label_column,
        label_map=said,
        corpora=corpora,
        only=among,
        split=None if split is None else Path(split),
        part=part,
        by=by,
        root=None if root is None else os.fspath(root),
    )
    return evaluate_predictions(os.fspath(predictions), question, None if second is None else os.fspath(second))


def adapt(
    predictions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    label_map: str = "",
    overwrite: bool = False,
    **options: Any,
) -> Adapted:
    """Fit the answers of a table of predictions to its archive, and write them to `out`: what `ser-batch adapt` does.

    Args:
        label_map: what labels mean, "exc=happy,fru="; as `--map`.
        options: the other fields of `ser_batch.adaptation.adapt.Adaptation`: `shares`, `among`, `labels`, `by`, ….

    Returns:
        what was found, and how many rows have another label now.

    Raises:
        SerError: anything that the user can cause.
    """
    said, corpora = parse_map(label_map)
    return adapt_table(predictions, out, Adaptation(label_map=said, corpora=corpora, **options), overwrite=overwrite)


def fit_head(
    labels: str | os.PathLike[str],
    embeddings: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bundle: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    label_map: str = "",
    by: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> FittedHead:
    """Fit a classifier for labels of your own, and write it as the bundle `out`: what `ser-batch head` does.

    Args:
        labels: table of labelled recordings.
        embeddings: what a run with `embeddings` wrote.
        bundle: that made them; None: the embedded default bundle.
        label_map: what labels mean to the bundle, "frustrated=angry,unsure="; as `--map`.
        by: column that is kept apart in cross-validation; None: speaker, where there is one.
        name: of the new bundle; None: its folder's.

    Returns:
        the head, and how good it is by cross-validation.

    Raises:
        SerError: anything that the user can cause.
    """
    check_target(Path(out), overwrite)
    said, corpora = parse_map(label_map)
    base = load_bundle(None if bundle is None else Path(bundle))
    question = Question(os.fspath(labels), label_column, label_map=said, corpora=corpora, by=by)
    fitted = head.fit_head(os.fspath(embeddings), base, question)
    head.write_head(fitted, base, Path(out), name=name, overwrite=overwrite)
    return fitted
