"""`bench resume`: what `ser-batch run --resume` costs with nothing left to do, and with a few new files.

Each timing is of a whole process, from start to exit. To check an archive costs the time beyond that of the same
command on an archive of one file: the rest is the start of Python, engine and decoders, whatever the archive.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.archive import link_recordings
from bench.processes import Finished, run_archive
from bench.timing import Series, warnings
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError, InputError
from ser_batch.recordings.recording import Recording
from ser_batch.strict_json import parse

_log = logging.getLogger(__name__)
COUNTS = (1000, 5000)
NEW = 100
"""In the last step one file in a hundred is new; at least one is."""
WHOLE, NOTHING, ADDED = "from nothing", "--resume, nothing to do", "--resume, 1 % new"


@dataclass(frozen=True)
class ResumeStep:
    """One command on one archive."""

    bundle: str
    backend: str
    """As it was asked for."""
    step: str
    files: int
    """In the archive, new ones included."""
    scored: int
    """Recordings that the process made rows for, by its own summary, as is `reused`."""
    reused: int
    """Recordings whose rows an earlier process had made."""
    seconds: Series
    """From process start to exit."""
    peak_rss: int
    """Bytes, of the largest process of all repetitions."""
    looking: float | None
    """With nothing to do, seconds per thousand files beyond the archive of one file; None in the other steps.

    Noise can make it negative where the archive is small.
    """
    warnings: list[str]


def measure_resume(
    recordings: Sequence[Recording], counts: Sequence[int], bundle: Bundle, backend: str, repeats: int = 3
) -> Iterator[ResumeStep]:
    """The steps `WHOLE`, `NOTHING` and `ADDED` for an archive of one file, then for each of `counts`.

    Args:
        backend: "name" or "name:precision".
        repeats: of the step with nothing to do, which leaves everything as it was.

    Raises:
        InputError: a count or `repeats` below 1.
        EngineError: a run failed as a whole.
    """
    if min([*counts, repeats]) < 1 or not counts:
        raise InputError("numbers of files and repeats must be at least 1", got=f"{list(counts)} and {repeats}")
    floor = None
    for count in (1, *sorted({*counts} - {1})):
        for step in _steps(recordings, count, bundle, backend, repeats, floor):
            if count == 1 and step.step == NOTHING:
                floor = step.seconds.median
            _log.info(f"{step.files} files, {step.step}: {step.seconds.median:.2f} s")
            yield step


def _steps(
    recordings: Sequence[Recording], count: int, bundle: Bundle, backend: str, repeats: int, floor: float | None
) -> Iterator[ResumeStep]:
    """The three steps of one archive, `floor` being the seconds with nothing to do on one file."""
    new = max(1, count // NEW)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio = folder / "audio"

        def resume() -> Finished:
            return run_archive(folder, bundle.root, backend, "--json", "--resume")

        link_recordings(recordings, audio, count)
        yield _step(bundle, backend, WHOLE, count, [run_archive(folder, bundle.root, backend, "--json")])
        yield _step(bundle, backend, NOTHING, count, [resume() for _ in range(repeats)], floor)
        link_recordings(recordings, audio, new, start=count)
        yield _step(bundle, backend, ADDED, count + new, [resume()])


def _step(
    bundle: Bundle, backend: str, step: str, files: int, done: Sequence[Finished], floor: float | None = None
) -> ResumeStep:
    series = Series.of([one.seconds for one in done])
    summary = _summary(done[-1])
    return ResumeStep(
        bundle=bundle.id,
        backend=backend,
        step=step,
        files=files,
        scored=summary["rows"] - summary["reused"],
        reused=summary["reused"],
        seconds=series,
        peak_rss=max(one.peak_rss for one in done),
        looking=None if floor is None else (series.median - floor) / (files - 1) * 1000,
        warnings=warnings({"total": series}),
    )


def _summary(done: Finished) -> dict[str, int]:
    """The last event of a run with `--json`; lines about failures may follow it."""
    ends = [line for line in done.output.splitlines() if line.startswith('{"event": "end"')]
    if not ends:
        raise EngineError("ser-batch run --json ended without its summary", got=done.output[-200:])
    summary: dict[str, int] = parse(ends[-1], "the summary of ser-batch run --json", EngineError)
    return summary
