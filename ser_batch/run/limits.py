"""When a run has failed so often that it is plainly misconfigured, and goes no further."""

from __future__ import annotations

from dataclasses import dataclass

from ser_batch.errors import InputError
from ser_batch.run.progress import Tally

ENOUGH = 100
"""Recordings after which a share of failures means something; before the end of the run, that is."""


@dataclass(frozen=True)
class Limits:
    """How many recordings of one run may fail."""

    max_errors: int | None = None
    """So many may fail, and no more."""
    fail_over: float | None = None
    """The share that may fail, judged after `ENOUGH` recordings and at the end; see `check`."""

    def __post_init__(self) -> None:
        if (self.max_errors or 0) < 0 or not 0 <= (self.fail_over or 0) <= 1:
            raise InputError("a limit of failures is out of range", got=self, expected="a count; a share of 0 to 1")

    def check(self, tally: Tally, *, at_end: bool = False) -> None:
        """Raise InputError if more recordings have failed than may."""
        few = tally.files < ENOUGH
        # Of a few that a resumed run had left, a bad one says nothing; of all that the output holds, it may.
        among = tally.files + (tally.reused if few else 0)
        allowed = None
        if self.max_errors is not None and tally.failures > self.max_errors:
            allowed = f"no more than {self.max_errors} (--max-errors)"
        judged = tally.files > 0 and (at_end or not few)
        if self.fail_over is not None and judged and tally.failures > self.fail_over * among:
            allowed = f"no more than {self.fail_over:.0%} of them (--fail-over)"
        if allowed:
            raise InputError(
                f"{tally.failures} of {among} recordings failed",
                expected=allowed,
                remedy="Their rows say why and are kept: --resume --retry-errors goes on.",
            )
