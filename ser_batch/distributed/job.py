"""A job on a Ray cluster: the same rows, output, resume and limits as `ser_batch.run.job.execute`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.distributed.actor import Opened, Plan
from ser_batch.distributed.answers import Answers, spent
from ser_batch.distributed.cluster import Placement, Room, cluster, probe_engine, score_tasks
from ser_batch.distributed.parcels import Parcels
from ser_batch.errors import EngineError
from ser_batch.output.parts import Parts
from ser_batch.output.predictions import schema
from ser_batch.recordings.listing import Inputs
from ser_batch.recordings.sources import Source
from ser_batch.run.job import Done, Job, Watch, aggregate_rows, hearing_of, prepare
from ser_batch.run.keeping import Made, keep_rows
from ser_batch.run.pipeline import GPU_BATCH_SIZE, Settings, default_batch
from ser_batch.run.progress import Tally
from ser_batch.run.summary import summarise


def execute_on_ray(placement: Placement, job: Job, watch: Watch = lambda total: nullcontext()) -> Done:
    """Do a job with actors of a Ray cluster; this process lists the recordings and writes the rows.

    Every machine must see the recordings and the bundle under the same paths.

    Raises:
        SerError: anything that the user can cause; rows made before are kept.
    """
    inputs, output = prepare(job)
    bundle = load_bundle(job.bundle)
    hearing = hearing_of(job, bundle)
    with cluster(placement) as room:
        threads = job.threads or room.cpus
        opened = probe_engine(room, bundle.root.resolve(), job.backend, job.precision, threads)
        run = _Run(job, inputs, bundle, hearing, opened, room, threads)
        with watch(len(inputs.sources)) as progress:
            keep_rows(
                Parts(output, run.table, key=inputs.key, resume=job.resume and not job.overwrite),
                inputs,
                run.make,
                run.tally,
                limits=job.settings.limits,
                retry_errors=job.settings.retry_errors,
                progress=progress,
            )
            summary = summarise(output.tables(), bundle.labels, run.tally)
    aggregate_rows(job, output, inputs, bundle)
    where = f"{room.actors} Ray actors with {room.cpus} CPUs" + (f" and {room.gpus:g} GPUs" if room.gpus else "")
    model = f"{bundle.id} on {opened.name} {opened.precision}, {opened.device} ({opened.reason}), {where}"
    return Done(summary, model)


class _Run:
    """The making of rows, for `keep_rows`."""

    def __init__(
        self, job: Job, inputs: Inputs, bundle: Bundle, hearing: Hearing, opened: Opened, room: Room, threads: int
    ) -> None:
        self.tally = Tally(len(inputs.sources))
        carried = None if inputs.carried is None else inputs.carried.schema
        self.table = schema(bundle, opened, hearing, branch_columns=job.branch_columns, carried=carried)
        self._inputs, self._bundle, self._room = inputs, bundle, room
        self._plan = Plan(
            folder=Path.cwd(),
            bundle=bundle.root.resolve(),
            sha256=bundle.sha256,
            opened=opened,
            threads=threads,
            hearing=hearing,
            settings=_settings_of_an_actor(job, opened, room),
            table=schema(bundle, opened, hearing, branch_columns=job.branch_columns),
            content=inputs.content,
        )

    def make(self, todo: Iterator[Source]) -> Generator[Made]:
        """Rows of `todo`; what is lost with the process that scores it, again and again, is tried alone at last."""
        parcels = Parcels(todo)
        answers = Answers(parcels, self.table, self._inputs.carried)
        yield from self._collect(parcels.tasks(self._room.actors, long=self._plan.hearing.window is not None), answers)
        lost = answers.missing()
        if len(lost) and len(lost) == parcels.count:
            raise EngineError("every process that was to score recordings was lost", remedy="Is there memory?")
        yield from self._collect(parcels.alone(lost), answers)
        branches = tuple(branch.name for branch in self._bundle.manifest.branches)
        for number in answers.missing():
            yield answers.give_up(int(number), self._bundle.labels, branches)

    def _collect(self, tasks: Sequence[pa.Table], answers: Answers) -> Generator[Made]:
        if not tasks:
            return
        with closing(score_tasks(tasks, self._plan, self._room)) as tables:
            for answer in tables:
                made = answers.take(answer)
                for stage, seconds in spent(answer).items():
                    # Of all actors at once, so a share of it can be told.
                    self.tally.spent[stage] += seconds / self._room.actors
                if made is not None:
                    yield made


def _settings_of_an_actor(job: Job, opened: Opened, room: Room) -> Settings:
    """What is left to choose is chosen for an actor's CPUs, which are not all of its machine's."""
    batch = default_batch(room.cpus) if opened.device.startswith("cpu") else GPU_BATCH_SIZE
    settings = job.settings
    return replace(settings, workers=settings.workers or room.cpus, batch_size=settings.batch_size or batch)
