"""The run: decode processes, batches through the scorer, atomic parts, one table."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ser_batch.audio.hearing import Hearing
from ser_batch.decode.pool import FILE_TIMEOUT, DecodePool
from ser_batch.decode.source import Decoded
from ser_batch.engines.scorer import Scorer
from ser_batch.engines.streams import MICRO_BATCH
from ser_batch.errors import InputError
from ser_batch.machine import usable_cpus
from ser_batch.output.destination import Output, check_output
from ser_batch.output.parts import Parts
from ser_batch.output.predictions import record_batch, schema
from ser_batch.recordings.listing import Inputs
from ser_batch.recordings.sources import Source
from ser_batch.run.keeping import Made, keep_rows
from ser_batch.run.limits import Limits
from ser_batch.run.progress import Progress, Tally
from ser_batch.run.scoring import score_all
from ser_batch.run.summary import RunSummary, summarise

__all__ = ["RunSummary", "Settings", "run"]

BATCH_SIZE = 16
"""Clips scored together on a CPU of few cores, where more gain nothing and cost memory."""
GPU_BATCH_SIZE = 64
MAX_WORKERS = 32
"""Decode processes at most unless told otherwise: beyond, the one process that scores binds them."""


@dataclass(frozen=True)
class Settings:
    """How a run goes about it; none of these changes a row."""

    batch_size: int | None = None
    """Clips scored together; None: `default_batch` on a CPU, 64 elsewhere."""
    workers: int | None = None
    """Decode processes at most; None: one for each CPU that this process may use, 32 at most."""
    timeout: float = FILE_TIMEOUT
    """Seconds that a decoder may take for a file, or for the next few segments of it."""
    retry_errors: bool = False
    """When resuming, whether recordings that failed are tried again."""
    limits: Limits = field(default_factory=Limits)
    """When too many failures end the run."""

    def __post_init__(self) -> None:
        if min(1 if n is None else n for n in (self.batch_size, self.workers)) < 1 or not self.timeout > 0:
            raise InputError("a run needs workers, a batch size and time", got=self)

    def open_pool(self, hearing: Hearing) -> DecodePool:
        """Start decoding; worth doing before the engine is loaded, since it takes as long."""
        workers = self.workers or default_workers()
        ahead = 2 * (self.batch_size or default_batch()) + workers
        return DecodePool(hearing, workers=workers, ahead=ahead, timeout=self.timeout)

    def batch(self, device: str) -> int:
        """Clips scored together on `device`."""
        return self.batch_size or (default_batch() if device.startswith("cpu") else GPU_BATCH_SIZE)

    def usual_batch(self, recordings: int, hearing: Hearing) -> int:
        """What an engine on a CPU is opened for: a run of a few recordings never fills a batch."""
        batch = self.batch_size or default_batch()
        return min(batch, recordings) if hearing.window is None else batch


def run(
    inputs: Inputs | Sequence[Source],
    scorer: Scorer,
    out: Output | str | os.PathLike[str],
    *,
    hearing: Hearing | None = None,
    settings: Settings | None = None,
    pool: DecodePool | None = None,
    branch_columns: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Score each recording of `inputs`, and write its rows, in their order, to `out`.

    A recording that cannot be read or scored is a row with `status` "error". Rows go out in parts first; `out`
    appears, whole, at the end. An interrupted run leaves the rows it has for `resume`.

    Args:
        out: a Parquet file, or a folder (see `Output`).
        hearing: what is heard of each source; None: the clip of the bundle's rule.
        pool: one made with this hearing by `Settings.open_pool`; None: one of its own. It is closed.
        branch_columns: whether the table has the branches' own probabilities.
        overwrite: replace an existing output, and delete an unfinished one.
        resume: go on with an unfinished output or add to a finished one; rows whose input has changed since are
            made again.

    Raises:
        InputError: no sources, or more failures than the limits allow.
        OutputError: see `check_output` and `Parts`.
        EngineError: the engine failed before it scored anything.
    """
    settings = settings or Settings()
    hearing = hearing or Hearing(scorer.bundle.manifest.clip)
    out = out if isinstance(out, Output) else Output.parse(out)
    inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
    tally = Tally(len(inputs.sources))
    if not tally.total:
        raise InputError("a run needs recordings", got="none")
    check_output(out, overwrite=overwrite, resume=resume)
    carried = inputs.carried.schema if inputs.carried is not None else None
    table = schema(scorer.bundle, scorer.engine, hearing, branch_columns=branch_columns, carried=carried)

    def make(todo: Iterator[Source]) -> Generator[Made]:
        decoded = decoders.decode(todo, inputs.content)
        with closing(decoded):
            for rows, scores in score_all(decoded, scorer, settings.batch(scorer.engine.device), tally):
                with tally.stage("write"):
                    batch = record_batch(table, scorer.labels, rows, scores, inputs.carried)
                yield made_of(batch, rows)

    with pool or settings.open_pool(hearing) as decoders:
        keep_rows(
            Parts(out, table, key=inputs.key, resume=resume and not overwrite),
            inputs,
            make,
            tally,
            limits=settings.limits,
            retry_errors=settings.retry_errors,
            progress=progress,
        )
    return summarise(out.tables(), scorer.labels, tally)


def made_of(batch: Any, rows: Sequence[Decoded]) -> Made:
    """Count what the rows of a record batch are about."""
    return Made(
        batch,
        files=sum(row.last for row in rows),
        failures=[(row.source.file, row.error) for row in rows if row.error is not None],
        heard=sum(row.segment.end - row.segment.start for row in rows if row.segment),
        complete=rows[-1].last,
    )


def default_workers(cpus: int | None = None) -> int:
    """One decode process for each of so many CPUs (those that this process may use), and at most `MAX_WORKERS`.

    How many of them are started is the run's to find out: where the engine is slow, few.
    """
    return min(cpus or usable_cpus(), MAX_WORKERS)


def default_batch(cpus: int | None = None) -> int:
    """Two pieces for each lane that an engine can have on so many CPUs (as above), and at least `BATCH_SIZE`."""
    return max(BATCH_SIZE, 2 * MICRO_BATCH * (cpus or usable_cpus()))
