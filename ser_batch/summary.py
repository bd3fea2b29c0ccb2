"""What a run did, read back from the table that it wrote."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

KEPT_ERRORS = 10
"""Failures whose reason a summary repeats; the table has them all."""


@dataclass(frozen=True)
class RunSummary:
    """The rows are those of the whole table; the times and rates are those of this process."""

    clips: int
    """Recordings scored."""
    failures: int
    """Recordings that have an error row."""
    reused: int
    """Rows, of either kind, that an earlier run had finished."""
    audio_hours: float
    """Hours of sound in the clips scored: what the model heard, not what the recordings last."""
    labels: dict[str, int]
    """Label -> recordings, in the order of the bundle."""
    errors: list[tuple[str, str]]
    """(file, reason) of the first failures."""
    seconds: float
    """Wall time."""
    clips_per_second: float
    """Recordings scored or found bad, a second of wall time."""
    real_time_factor: float
    """Seconds of sound scored, a second of wall time."""
    peak_rss: int
    """Largest resident memory of the process until now, in bytes."""


def summarise(
    out: Path, labels: tuple[str, ...], *, rows: int, audio_seconds: float, seconds: float
) -> RunSummary:
    """Sum up the finished table `out`.

    Args:
        rows: rows that this process made.
        audio_seconds: sound that this process scored.
        seconds: wall time that it took.
    """
    table = _read(out, ["status", "label", "start", "end"])
    counts = {entry["values"]: entry["counts"] for entry in table["label"].value_counts().to_pylist()}
    scored = sum(counts.get(label, 0) for label in labels)
    failures = len(table) - scored
    heard = np.nansum(table["end"].to_numpy() - table["start"].to_numpy())
    return RunSummary(
        clips=scored,
        failures=failures,
        reused=len(table) - rows,
        audio_hours=float(heard) / 3600,
        labels={label: counts.get(label, 0) for label in labels},
        errors=_first_errors(out) if failures else [],
        seconds=seconds,
        clips_per_second=rows / seconds,
        real_time_factor=audio_seconds / seconds,
        peak_rss=peak_rss(),
    )


def peak_rss() -> int:
    """Largest resident memory of this process until now, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _first_errors(out: Path) -> list[tuple[str, str]]:
    rows = _read(out, ["file", "error"])
    failed = rows.filter(rows["error"].is_valid()).slice(0, KEPT_ERRORS).to_pydict()
    return list(zip(failed["file"], failed["error"], strict=True))


def _read(out: Path, columns: list[str]) -> Any:
    with pq.ParquetFile(out) as file:
        return file.read(columns)
