"""What the rows of a table say, counted as they go by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ERRORS = 10
"""Failures whose reason is kept; the table has them all."""
COLUMNS = ("file", "label", "start", "end", "status", "error", "bandwidth", "clipped")
"""What is counted of a row; an output of an earlier version lacks the last two."""
CLIPPED = 1e-3
"""Share of samples at full scale from which a row counts as clipped; see `ser_batch.audio.measure.clipped`."""


@dataclass
class Counts:
    """Rows by status and label, seconds of sound, the first errors."""

    narrow_below: float = 0.0
    """Hz below which the bandwidth of a row counts as narrow."""
    narrow: int = 0
    """Rows with a prediction whose bandwidth is narrow."""
    clipped: int = 0
    """Rows with a prediction that are clipped."""
    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Of sound in the rows that are no errors."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of the first failures."""

    def add(self, rows: Any, *, sign: int = 1) -> list[tuple[str, str]]:
        """Count rows, or take them off again.

        Args:
            rows: pyarrow Table or RecordBatch with the columns `COLUMNS`; others are not looked at.
            sign: 1 or -1.

        Returns:
            (file, reason) of the rows with an error.
        """
        columns = {name: rows.column(name).to_pylist() for name in COLUMNS if name in rows.schema.names}
        for counter, name in ((self.statuses, "status"), (self.labels, "label")):
            for value in columns[name]:
                if value is not None:
                    counter[value] += sign
        for start, end in zip(columns["start"], columns["end"], strict=True):
            if start is not None:
                self.seconds += sign * (end - start)
        for status, hertz in zip(columns["status"], columns.get("bandwidth", ()), strict=False):
            self.narrow += sign * (status == "ok" and hertz is not None and hertz < self.narrow_below)
        for status, share in zip(columns["status"], columns.get("clipped", ()), strict=False):
            self.clipped += sign * (status == "ok" and share is not None and share >= CLIPPED)
        failures = [pair for pair in zip(columns["file"], columns["error"], strict=True) if pair[1] is not None]
        if sign > 0:
            self.errors.extend(failures[: max(0, ERRORS - len(self.errors))])
        else:
            self.errors = [pair for pair in self.errors if pair not in failures]
        return failures

    def clear(self) -> None:
        """Begin again."""
        self.statuses.clear()
        self.labels.clear()
        self.errors.clear()
        self.seconds = 0.0
        self.narrow = self.clipped = 0
