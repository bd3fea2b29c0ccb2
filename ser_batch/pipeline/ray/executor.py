"""The executor that scores on the actors of a Ray cluster; this process lists the recordings and writes the rows.

Every machine must see the recordings and the bundle under the same paths.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.engines.protocol import EngineIdentity
from ser_batch.errors import EngineError
from ser_batch.output.schema import schema
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.executor import Scored
from ser_batch.pipeline.local import default_batch_on
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.ray.actor import Opened, Plan
from ser_batch.pipeline.ray.cluster import Placement, Room, cluster, probe_engine, score_tasks
from ser_batch.pipeline.ray.tasks import Results, Tasks, spent
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings


class RayExecutor:
    """Runs on a Ray cluster."""

    def __init__(self, placement: Placement | None = None) -> None:
        self._placement = placement or Placement()

    @contextmanager
    def open(self, config: RunConfig, recordings: Recordings) -> Iterator[RayScoring]:
        """See `executor.Executor`."""
        bundle = load_bundle(config.bundle)
        # What no actor could do is refused before a cluster is asked.
        config.segmentation(bundle.manifest.clip)
        if config.embeddings is not None:
            bundle.embedding()
        with cluster(self._placement) as room:
            threads = config.threads or room.cpus
            opened = probe_engine(room, bundle.root.resolve(), config.backend, config.precision, threads)
            yield RayScoring(config, recordings, bundle, opened, room, threads)


class RayScoring:
    """Actors at work; see `executor.Scoring`."""

    def __init__(
        self, config: RunConfig, recordings: Recordings, bundle: Bundle, opened: Opened, room: Room, threads: int
    ) -> None:
        self.bundle = bundle
        self.engine: EngineIdentity = opened
        self.segmentation = config.segmentation(bundle.manifest.clip)
        where = f"{room.actors} Ray actors with {room.cpus} CPUs" + (f" and {room.gpus:g} GPUs" if room.gpus else "")
        self.description = f"{opened.name} {opened.precision}, {opened.device}, {where}"
        self.reason = opened.reason
        self._recordings, self._room = recordings, room
        self._plan = Plan(
            folder=Path.cwd(),
            bundle=bundle.root.resolve(),
            sha256=bundle.sha256,
            opened=opened,
            threads=threads,
            segmentation=self.segmentation,
            config=_config_of_an_actor(config, opened, room),
            table=schema(
                bundle, opened, self.segmentation, branch_columns=config.branch_columns, embeddings=config.embeddings
            ),
            content=recordings.content,
        )

    def score(self, recordings: Iterator[Recording], table: pa.Schema, progress: Progress) -> Generator[Scored]:
        """See `executor.Scoring`; what is lost with the process that scores it, again and again, is tried alone."""
        tasks = Tasks(recordings)
        results = Results(tasks, table, self._recordings.extra)
        long = not self.segmentation.is_one_row
        yield from self._collect(tasks.divided(self._room.actors, long=long), results, progress)
        lost = results.missing()
        if len(lost) and len(lost) == tasks.count:
            raise EngineError("every process that was to score recordings was lost", remedy="Is there memory?")
        yield from self._collect(tasks.alone(lost), results, progress)
        for number in results.missing():
            yield results.give_up(int(number), self.bundle)

    def _collect(self, tasks: Sequence[pa.Table], results: Results, progress: Progress) -> Generator[Scored]:
        if not tasks:
            return
        with closing(score_tasks(tasks, self._plan, self._room)) as tables:
            for result in tables:
                scored = results.take(result)
                for stage, seconds in spent(result).items():
                    # Of all actors at once, so a share of it can be told.
                    progress.spent[stage] += seconds / self._room.actors
                if scored is not None:
                    yield scored


def _config_of_an_actor(config: RunConfig, opened: Opened, room: Room) -> RunConfig:
    """What is left to choose is chosen for an actor's CPUs, which are not all of its machine's."""
    return replace(
        config,
        audio=(),
        workers=config.workers or room.cpus,
        batch_size=config.batch_size or default_batch_on(opened.device, room.cpus),
    )
