"""How far a run is, where its time goes, and who is told: a progress bar, JSON lines, a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ser_batch.files import writing
from ser_batch.output.rows import Counts
from ser_batch.recordings.recording import Segment
from ser_batch.text import terminal_safe

STAGES = ("decode", "engine", "write")
"""Where the run's own time goes: waiting for decoded clips, scoring them, writing rows."""
JSON_SECONDS = 1.0
"""At least so long between two progress lines."""
LOG_SECONDS = 30.0


@dataclass
class Progress:
    """What one run has done so far."""

    total: int
    """Recordings given, those with rows already among them."""
    output: Counts = field(default_factory=Counts)
    """Of the rows of the whole output, those of earlier runs among them."""
    reused: int = 0
    """Recordings whose rows an earlier run made."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Ending -> files of the folders searched that were not taken."""
    unlisted: int = 0
    """Recordings that have rows of an earlier run and are not among those given."""
    files: int = 0
    """Recordings finished by this run."""
    rows: int = 0
    """Rows made by this run."""
    failures: int = 0
    """Recordings of this run that have an error row."""
    latest_failures: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of the failures in the last batch."""
    seconds_scored: float = 0.0
    """Seconds of sound in the rows of this run."""
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Stage -> seconds."""
    within: float = 0.0
    """How much of the next recording has been scored, 0 to 1."""
    seconds_within: float = 0.0
    """Seconds of sound of it that are in no row yet."""
    listener: Listener | None = None
    """Who is told between two rows of a long recording."""
    started: float = field(default_factory=time.perf_counter)

    def count(self, batch: Any, files: int) -> None:
        """Count a record batch of the output's rows, in which `files` recordings end."""
        before = self.output.seconds
        self.latest_failures = self.output.add(batch)
        self.rows += len(batch)
        self.files += files
        self.failures += len(self.latest_failures)
        self.seconds_scored += self.output.seconds - before
        if files:
            self.within = self.seconds_within = 0.0

    def reach(self, segment: Segment) -> None:
        """Note that a segment has been scored, in a recording that may be long, and tell of it if no row does."""
        if segment.last or segment.end is None or segment.duration is None:
            return
        begin, end = segment.recording.span or (0.0, segment.duration)
        length = min(end, segment.duration) - begin
        self.within = min(1.0, (segment.end - begin) / length) if length > 0 else 0.0
        if segment.is_window:
            self.seconds_within = segment.end - begin
            self.latest_failures = []
            if self.listener is not None:
                self.listener(self)

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest will take at the rate so far; None: nobody knows yet."""
        return self._left * self.seconds / self._done if self._done else None

    @property
    def _done(self) -> float:
        """Recordings that this run has finished, and the part of the next one."""
        return self.files + self.within

    @property
    def _left(self) -> float:
        return self.total - self.reused - self._done

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

    def to_event(self) -> dict[str, Any]:
        """How far the run is, as plain numbers; what is left of the audio is an estimate from what was scored."""
        stage, share = self.bottleneck
        heard = self.seconds_scored + self.seconds_within
        return {
            "event": "progress",
            "files": self.reused + self.files,
            "within": round(self.within, 4),
            "total": self.total,
            "failures": self.failures,
            "rows": self.rows,
            "audio_hours": round(heard / 3600, 4),
            "audio_hours_left": round(self._left * heard / 3600 / self._done, 4) if self._done else None,
            "files_per_second": round(self.files / self.seconds, 2),
            "seconds": round(self.seconds, 2),
            "eta_seconds": None if self.remaining is None else round(self.remaining, 1),
            "bottleneck": stage,
            "bottleneck_share": round(share, 4),
        }


Listener = Callable[[Progress], None]
"""Called after each batch of rows, and of windows of a long recording."""


def together(listeners: Sequence[Listener]) -> Listener | None:
    """One callback for all of them."""
    if not listeners:
        return None

    def tell(progress: Progress) -> None:
        for listener in listeners:
            listener(progress)

    return tell


class JsonLines:
    """Progress as one JSON object per line, at most one a second."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write where the run is."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + JSON_SECONDS
            self.write(progress.to_event())

    def write(self, event: dict[str, Any]) -> None:
        """Write one event."""
        with writing("standard output"):
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()


class Log:
    """A text file that is added to: starts, failures one by one, progress now and then, ends.

    Raises:
        OutputError: it cannot be opened, or later on written.
    """

    def __init__(self, path: Path) -> None:
        self._name = f"the log {path}"
        with writing(self._name):
            self._file = path.open("a", encoding="utf-8")
        self._next = time.monotonic() + LOG_SECONDS

    def __call__(self, progress: Progress) -> None:
        """Log the latest failures, and now and then where the run is."""
        for file, reason in progress.latest_failures:
            self.write(f"failed: {terminal_safe(file)}: {terminal_safe(reason)}")
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_SECONDS
            self.write(json.dumps(progress.to_event()))

    def write(self, text: str) -> None:
        """Add lines, each with the time."""
        with writing(self._name):
            for line in text.split("\n"):
                self._file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {terminal_safe(line)}\n")
            self._file.flush()


@contextmanager
def progress_bar(total: int) -> Iterator[Listener]:
    """A bar on stderr: files, hours scored of about how many, failures, time gone and left."""
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[text]}"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, text="")

        def show(progress: Progress) -> None:
            event = progress.to_event()
            scored = event["audio_hours"]
            text = f"{scored:.1f} of about {scored + (event['audio_hours_left'] or 0.0):.1f} h"
            bar.update(task, completed=event["files"] + progress.within, text=f"{text}, {progress.failures} failed")

        yield show
