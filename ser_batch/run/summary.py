"""What a run did, read back from the table that it wrote."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ser_batch.output.parquet import batches
from ser_batch.output.predictions import STATUSES
from ser_batch.output.store import Stored
from ser_batch.run.progress import Tally

KEPT_ERRORS = 10
"""Failures whose reason a summary repeats; the table has them all."""


@dataclass(frozen=True)
class RunSummary:
    """The rows are those of the whole table; the times and rates are those of this process."""

    rows: int
    statuses: dict[str, int]
    """Status -> rows, in the order of `STATUSES`."""
    labels: dict[str, int]
    """Label -> rows, in the order of the bundle."""
    audio_hours: float
    """Hours of sound in the rows that are no errors: what was heard, not what the recordings last."""
    errors: list[tuple[str, str]]
    """(file, reason) of the first failures."""
    reused: int
    """Recordings whose rows an earlier run had made."""
    unlisted: int
    """Recordings that an earlier run made rows of, and that this one was not given; their rows are kept."""
    seconds: float
    """Wall time."""
    clips_per_second: float
    """Rows made, a second of wall time."""
    real_time_factor: float
    """Seconds of sound heard, a second of wall time."""
    bottleneck: tuple[str, float]
    """The stage that took the most of the time, and its share."""
    peak_rss: int
    """Largest resident memory of this process until now, in bytes; the decode processes are not in it."""

    @property
    def failures(self) -> int:
        """Rows with an error."""
        return self.statuses["error"]

    @property
    def clips(self) -> int:
        """Rows with a prediction."""
        return self.statuses["ok"]


def summarise(tables: Sequence[Stored], labels: tuple[str, ...], tally: Tally) -> RunSummary:
    """Sum up the finished table, one file or several, and what `tally` counted on the way."""
    seconds = tally.seconds
    found: Counter[str | None] = Counter()
    statuses: Counter[str] = Counter()
    heard = 0.0
    errors: list[tuple[str, str]] = []
    # Plain Python over batches: pyarrow.compute takes longer to import than a small table to read.
    for table in batches(tables, ["file", "label", "start", "end", "status", "error"]):
        found.update(table["label"])
        statuses.update(table["status"])
        heard += sum(table["end"][row] - start for row, start in enumerate(table["start"]) if start is not None)
        for file, error in zip(table["file"], table["error"], strict=True):
            if error is not None and len(errors) < KEPT_ERRORS:
                errors.append((file, error))
    return RunSummary(
        rows=statuses.total(),
        statuses={status: statuses[status] for status in STATUSES},
        labels={label: found[label] for label in labels},
        audio_hours=heard / 3600,
        errors=errors,
        reused=tally.reused,
        unlisted=tally.unlisted,
        seconds=seconds,
        clips_per_second=tally.rows / seconds,
        real_time_factor=tally.heard / seconds,
        bottleneck=tally.bottleneck,
        peak_rss=peak_rss(),
    )


def peak_rss() -> int:
    """Largest resident memory of this process until now, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
