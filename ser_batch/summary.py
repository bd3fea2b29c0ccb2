"""What a run did, read back from the table that it wrote."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

BATCH_ROWS = 4096
"""Rows held as Python objects at a time."""
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


def summarise(out: Path, labels: tuple[str, ...], *, rows: int, audio_seconds: float, seconds: float) -> RunSummary:
    """Sum up the finished table `out`.

    Args:
        rows: rows that this process made.
        audio_seconds: sound that this process scored.
        seconds: wall time that it took.
    """
    counts: Counter[str | None] = Counter()
    heard = 0.0
    errors: list[tuple[str, str]] = []
    # Plain Python over batches: pyarrow.compute takes longer to import than a small table to read.
    for table in _batches(out, ["file", "label", "start", "end", "error"]):
        counts.update(table["label"])
        for file, start, end, error in zip(table["file"], table["start"], table["end"], table["error"], strict=True):
            if error is None:
                heard += end - start
            elif len(errors) < KEPT_ERRORS:
                errors.append((file, error))
    failures, total = counts[None], counts.total()
    return RunSummary(
        clips=total - failures,
        failures=failures,
        reused=total - rows,
        audio_hours=heard / 3600,
        labels={label: counts[label] for label in labels},
        errors=errors,
        seconds=seconds,
        clips_per_second=rows / seconds,
        real_time_factor=audio_seconds / seconds,
        peak_rss=peak_rss(),
    )


def peak_rss() -> int:
    """Largest resident memory of this process until now, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _batches(out: Path, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    with pq.ParquetFile(out) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield batch.to_pydict()
