"""What a table of predictions says: its labels, scores, levels, bandwidths and failures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.evaluation.predictions import PredictionTable
from ser_batch.report.figures import Figure, Table, bars, colours, histogram, short, svg
from ser_batch.text import terminal_safe

REASONS = 15
"""Reasons of failures that are shown."""
Floats = npt.NDArray[np.float64]


def said(table: PredictionTable) -> npt.NDArray[np.int64]:
    """The label (N,) of each row by number; -1 where it was not scored."""
    found = np.full(len(table.files), -1)
    found[table.ok] = table.models[FUSED][table.ok].argmax(axis=1)
    return found


def column(table: PredictionTable, name: str) -> Floats:
    """A column of numbers (N,), NaN where there is none; all NaN where the column is absent."""
    if name not in table.others.column_names:
        return np.full(len(table.files), np.nan)
    return np.asarray(table.others[name].to_numpy(), dtype=np.float64)


def figures(table: PredictionTable) -> list[Figure]:
    """Every figure that the predictions alone give, in reading order."""
    found = [_labels(table), _scores(table)] if table.ok.any() else []
    heard = column(table, "level")
    if np.isfinite(heard).any():
        found.append(_levels(heard))
    bandwidth = column(table, "bandwidth")
    if np.isfinite(bandwidth).any():
        found.append(_bandwidths(bandwidth[np.isfinite(bandwidth)]))
    if any(status == "error" for status in table.statuses):
        found.append(_failures(table))
    return found


def _labels(table: PredictionTable) -> Figure:
    labels, ok = said(table), table.ok
    counts = np.bincount(labels[ok], minlength=len(table.labels))
    mean = table.models[FUSED][ok].mean(axis=0)
    shares = dict(zip(table.labels, (counts / counts.sum()).tolist(), strict=True))
    most = max(shares, key=lambda label: shares[label])
    rows = [(label, int(counts[i]), f"{shares[label]:.1%}", f"{mean[i]:.1%}") for i, label in enumerate(table.labels)]
    return Figure(
        "Labels",
        f"The most frequent label is {most}, with {shares[most]:.1%} of {counts.sum():,} scored rows.",
        svg(bars(shares, "share of scored rows", palette=colours(table.labels))),
        Table("Labels by frequency", ("label", "rows", "share", "mean probability"), rows),
    )


def _scores(table: PredictionTable) -> Figure:
    scores, labels = table.models[FUSED][table.ok].max(axis=1), said(table)[table.ok]
    edges = np.linspace(0, 1, 21)
    counts = {label: np.histogram(scores[labels == i], edges)[0].tolist() for i, label in enumerate(table.labels)}
    rows = [
        (label, len(here), *(f"{value:.2f}" for value in np.quantile(here, (0.1, 0.5, 0.9))))
        for i, label in enumerate(table.labels)
        if len(here := scores[labels == i])
    ]
    return Figure(
        "Scores",
        f"Half of the rows have a score, the largest probability, above {np.median(scores):.2f}.",
        svg(histogram(edges.tolist(), counts, "score", colours(table.labels))),
        Table("Scores by label", ("label", "rows", "10 %", "median", "90 %"), rows),
    )


def _levels(heard: Floats) -> Figure:
    finite = heard[np.isfinite(heard)]
    silent = int(np.isneginf(heard).sum())
    low = 5 * np.floor(max(finite.min(), -100) / 5)
    edges = np.arange(low, 5 * np.ceil(max(finite.max(), low + 5) / 5) + 1, 5)
    quiet = f"; {silent:,} rows are digital silence" if silent else ""
    return _distribution(
        "Levels",
        np.clip(finite, edges[0], None),
        edges,
        "dBFS (RMS)",
        f"Half of the rows are above {np.median(finite):.1f} dBFS{quiet}.",
    )


def _bandwidths(bandwidth: Floats) -> Figure:
    edges = np.arange(0, 1000 * np.ceil(max(bandwidth.max(), 4000) / 1000) + 1, 1000)
    narrow = float((bandwidth <= 4000).mean())
    summary = f"Half of the rows have sound up to {np.median(bandwidth):,.0f} Hz; {narrow:.1%} have none above 4 kHz."
    return _distribution("Bandwidths", bandwidth, edges, "Hz", summary)


def _distribution(title: str, values: Floats, edges: Floats, unit: str, summary: str) -> Figure:
    counts = np.histogram(values, edges)[0]
    rows = [(f"{edges[i]:,.0f} to {edges[i + 1]:,.0f}", int(count)) for i, count in enumerate(counts.tolist()) if count]
    drawn = svg(histogram(edges.tolist(), {"rows": counts.tolist()}, unit, {}))
    return Figure(title, summary, drawn, Table(f"{title} by {unit}", (unit, "rows"), rows))


def _failures(table: PredictionTable) -> Figure:
    reasons = reasons_of(table)
    counts = Counter(_kind(reason) for reason, status in zip(reasons, table.statuses, strict=True) if status == "error")
    shown: Counter[str] = Counter()
    for reason, count in counts.most_common(REASONS):
        shown[short(reason)] += count
    total = counts.total()
    rows = [(reason, count) for reason, count in counts.most_common(200)]
    return Figure(
        "Failures",
        f"{total:,} of {len(reasons):,} rows failed; the most frequent reason is: {next(iter(shown))}.",
        svg(bars({reason: float(count) for reason, count in shown.items()}, "rows", percent=False)),
        Table("Failures by reason", ("reason", "rows"), rows),
    )


def reasons_of(table: PredictionTable) -> Sequence[str]:
    """Why each row has no prediction; empty where it has one."""
    if "error" not in table.others.column_names:
        return [""] * len(table.files)
    return [reason or "" for reason in table.others["error"].to_pylist()]


def _kind(reason: str) -> str:
    """A reason without the numbers and names that differ from file to file."""
    return re.sub(r"\d+(\.\d+)?", "…", terminal_safe(reason.split(";")[0]))[:160] or "no reason given"
