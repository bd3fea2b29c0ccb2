"""Who watches a run: a progress bar for people, JSON lines for machines, a log for later."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ser_batch.errors import OutputError
from ser_batch.run.progress import Progress, Tally
from ser_batch.text import terminal_safe

JSON_SECONDS = 1.0
"""At least so long between two progress lines."""
LOG_SECONDS = 30.0


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Raise OutputError where something of that name is full or closed: who watches would miss the rest."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written", got=error.strerror) from error


def together(watchers: Sequence[Progress]) -> Progress | None:
    """One callback for all of them."""
    if not watchers:
        return None

    def tell(tally: Tally) -> None:
        for watcher in watchers:
            watcher(tally)

    return tell


def progress_event(tally: Tally) -> dict[str, Any]:
    """How far a run is, as plain numbers; what is left of the audio is an estimate from what was heard."""
    stage, share = tally.bottleneck
    left = tally.total - tally.reused - tally.files
    return {
        "event": "progress",
        "files": tally.reused + tally.files,
        "total": tally.total,
        "failures": tally.failures,
        "rows": tally.rows,
        "audio_hours": round(tally.heard / 3600, 4),
        "audio_hours_left": round(left * tally.heard / 3600 / tally.files, 4) if tally.files else None,
        "files_per_second": round(tally.files / tally.seconds, 2),
        "seconds": round(tally.seconds, 2),
        "eta_seconds": None if tally.remaining is None else round(tally.remaining, 1),
        "bottleneck": stage,
        "bottleneck_share": round(share, 4),
    }


class JsonLines:
    """Progress as one JSON object a line, at most one a second."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._next = 0.0

    def __call__(self, tally: Tally) -> None:
        """Write where the run is."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + JSON_SECONDS
            self.write(progress_event(tally))

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

    def __call__(self, tally: Tally) -> None:
        """Log fresh failures, and now and then where the run is."""
        for file, reason in tally.fresh:
            self.write(f"failed: {terminal_safe(file)}: {terminal_safe(reason)}")
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_SECONDS
            self.write(json.dumps(progress_event(tally)))

    def write(self, text: str) -> None:
        """Add lines, each with the time."""
        with writing(self._name):
            for line in text.split("\n"):
                self._file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {terminal_safe(line)}\n")
            self._file.flush()


@contextmanager
def progress_bar(total: int) -> Iterator[Progress]:
    """A bar on stderr: files, hours heard of about how many, failures, time gone and left."""
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

        def show(tally: Tally) -> None:
            event = progress_event(tally)
            left = event["audio_hours_left"] or 0.0
            text = f"{tally.heard / 3600:.1f} of about {tally.heard / 3600 + left:.1f} h, {tally.failures} failed"
            bar.update(task, completed=event["files"], text=text)

        yield show
