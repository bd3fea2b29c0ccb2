"""How far a run is, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("decode", "engine", "write")
"""Where the run's own time goes: waiting for decoded clips, scoring them, writing rows."""


@dataclass
class Tally:
    """Counts of one process, growing as the run goes on."""

    total: int
    """Recordings given, those with rows already among them."""
    reused: int = 0
    """Recordings whose rows an earlier run made."""
    unlisted: int = 0
    """Recordings that have rows of an earlier run and are not among those given."""
    files: int = 0
    """Recordings finished by this process."""
    rows: int = 0
    failures: int = 0
    """Recordings of this process that have an error row."""
    fresh: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of the failures in the last batch."""
    heard: float = 0.0
    """Seconds of sound heard by this process."""
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Stage -> seconds."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest will take at the rate so far; None: nobody knows yet."""
        left = self.total - self.reused - self.files
        return left * self.seconds / self.files if self.files else None

    @property
    def bottleneck(self) -> tuple[str, float]:
        """The stage that takes the most of the time, and its share of it."""
        stage = max(self.spent, key=self.spent.__getitem__)
        return stage, self.spent[stage] / max(self.seconds, 1e-9)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as that of a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] += time.perf_counter() - begin


Progress = Callable[[Tally], None]
"""Called after each batch."""
