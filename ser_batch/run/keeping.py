"""From rows made, wherever they were made, to a finished output: what has rows already, parts, limits, progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from ser_batch.decode.source import ABSENT, source_version
from ser_batch.decode.versions import with_versions
from ser_batch.errors import OutputError
from ser_batch.output.parts import Parts
from ser_batch.recordings.listing import Inputs
from ser_batch.recordings.sources import Source
from ser_batch.run.limits import Limits
from ser_batch.run.progress import Progress, Tally


@dataclass(frozen=True)
class Made:
    """Some rows of the table, and what is counted of them."""

    batch: Any
    """pyarrow.RecordBatch of the table's schema."""
    files: int
    """Recordings whose last row is among them."""
    failures: list[tuple[str, str]]
    """(file, reason) of those with an error row."""
    heard: float
    """Seconds of sound."""
    complete: bool = True
    """Whether there are no more rows to come about the recording of the last row."""


Make = Callable[[Iterator[Source]], Generator[Made]]
"""Given the recordings that want rows, makes them; those of one recording come together."""


def keep_rows(
    parts: Parts,
    inputs: Inputs,
    make: Make,
    tally: Tally,
    *,
    limits: Limits,
    retry_errors: bool = False,
    progress: Progress | None = None,
) -> None:
    """Have rows made for the recordings of `inputs` that lack them, keep them in `parts` and finish the output.

    Whatever ends the run early, the rows made until then are kept. `parts` is closed.

    Raises:
        InputError: more failures than the limits allow.
        OutputError: see `Parts`.
    """
    try:
        with closing(make(_unfinished(inputs.sources, parts, tally, retry_errors))) as made:
            for each in made:
                _keep(parts, each, tally)
                limits.check(tally)
                if progress is not None:
                    progress(tally)
        limits.check(tally, at_end=True)
        with tally.stage("write"):
            parts.finish(_Names(inputs.sources))
    except BaseException:
        with suppress(OutputError):
            parts.flush()
        raise
    finally:
        parts.close()


def _keep(parts: Parts, made: Made, tally: Tally) -> None:
    with tally.stage("write"):
        parts.append(made.batch, complete=made.complete)
    tally.rows += made.batch.num_rows
    tally.files += made.files
    tally.failures += len(made.failures)
    tally.fresh = made.failures
    tally.heard += made.heard


def _unfinished(sources: Iterable[Source], parts: Parts, tally: Tally, retry_errors: bool) -> Iterator[Source]:
    """Sources without rows, or whose rows are about another version of the input; absent ones are retried."""
    index, known = parts.index(), 0
    for source in with_versions(sources) if len(index) else sources:
        found = index.find(source.key) if len(index) else None
        known += found is not None
        again = found is None or found.version == ABSENT or (retry_errors and found.failed)
        if again or (found and found.version != source_version(source)):
            yield source
        else:
            tally.reused += 1
    tally.unlisted = len(index) - known


class _Names:
    """The names of `sources`, one at a time and as often as asked."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[str]:
        return (source.key for source in self._sources)
