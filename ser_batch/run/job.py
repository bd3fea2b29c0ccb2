"""One `ser-batch run`, from what was asked for to what was done; nothing here knows of a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.audio.hearing import Hearing
from ser_batch.errors import OutputError
from ser_batch.output.destination import Output, check_output
from ser_batch.recordings.listing import Inputs, find_inputs
from ser_batch.run.pipeline import Settings, run
from ser_batch.run.progress import Progress
from ser_batch.run.summary import RunSummary

if TYPE_CHECKING:
    from ser_batch.bundle.bundle import Bundle

Watch = Callable[[int], AbstractContextManager[Progress | None]]
"""Given the number of recordings, what watches the run."""


@dataclass(frozen=True)
class Job:
    """What a run is asked to do."""

    audio: tuple[str, ...]
    out: str
    bundle: Path | None = None
    backend: str = "auto"
    precision: str | None = None
    threads: int | None = None
    window: float | None = None
    hop: float | None = None
    min_duration: float = 0.0
    silence: float | None = None
    aggregate: str | os.PathLike[str] | None = None
    """Also write one row a recording here; see `ser_batch.output.aggregate`."""
    shard: tuple[int, int] | None = None
    branch_columns: bool = True
    overwrite: bool = False
    resume: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Done:
    """What a job came to."""

    summary: RunSummary
    model: str
    """Bundle, runtime, precision and device, in words."""


def execute(job: Job, watch: Watch = lambda total: nullcontext()) -> Done:
    """Do a job.

    Raises:
        SerError: anything that the user can cause; rows made before are kept.
    """
    inputs, output = prepare(job)
    # Imported when it is clear that there is something to do: an engine takes a while.
    from ser_batch.bundle.bundle import load_bundle
    from ser_batch.engines import open_engine
    from ser_batch.engines.scorer import Scorer
    from ser_batch.verification.auto import choose

    bundle = load_bundle(job.bundle)
    hearing = hearing_of(job, bundle)
    with job.settings.open_pool(hearing) as pool:
        choice = choose(bundle, job.backend, job.precision)
        batch = job.settings.usual_batch(len(inputs.sources), hearing)
        engine = open_engine(bundle, choice.backend, job.threads, choice.precision, batch)
        try:
            with watch(len(inputs.sources)) as progress:
                summary = run(
                    inputs,
                    Scorer(bundle, engine),
                    output,
                    hearing=hearing,
                    settings=job.settings,
                    pool=pool,
                    branch_columns=job.branch_columns,
                    overwrite=job.overwrite,
                    resume=job.resume,
                    progress=progress,
                )
        finally:
            engine.close()
    aggregate_rows(job, output, inputs, bundle)
    model = f"{bundle.id} on {engine.name} {engine.precision}, {engine.device} ({choice.reason})"
    return Done(summary, model)


def prepare(job: Job) -> tuple[Inputs, Output]:
    """What a job is about, once it is clear that it can be written.

    Raises:
        InputError: nothing found.
        OutputError: see `check_output`.
    """
    inputs = find_inputs(job.audio, job.shard)
    output = Output.parse(job.out)
    check_output(output, overwrite=job.overwrite, resume=job.resume)
    if job.aggregate is not None:
        _check_aggregate(job.aggregate, output, job)
    return inputs, output


def hearing_of(job: Job, bundle: Bundle) -> Hearing:
    """What a job hears of each recording."""
    return Hearing(bundle.manifest.clip, job.window, job.hop, job.min_duration, job.silence)


def aggregate_rows(job: Job, output: Output, inputs: Inputs, bundle: Bundle) -> None:
    """Write the row a recording that a job may ask for, from its finished output."""
    if job.aggregate is not None:
        from ser_batch.output.aggregate import aggregate

        aggregate(output.tables(), inputs.key, bundle.labels, Output.parse(job.aggregate).file)


def _check_aggregate(path: str | os.PathLike[str], output: Output, job: Job) -> None:
    out = Output.parse(path)
    if str(out) == str(output) or out.keeps_parts:
        raise OutputError(f"{path} cannot hold one row a recording", expected="a file of its own")
    check_output(out, overwrite=job.overwrite or job.resume)
