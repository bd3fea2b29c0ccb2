"""What runs on a machine of the cluster: a bundle in an engine, and decode processes, behind one call a task.

Decoding has processes of its own here, too: a recording that crashes a decoder is a row, and the actor lives on.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import Segmentation
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import BundleError, EngineError, SerError, StoreError
from ser_batch.output.schema import record_batch
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.local import default_batch_on, open_pool, score_segments
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.ray.tasks import LOST, NUMBER, SPENT, STOPPED, unpack
from ser_batch.recordings.recording import Recording
from ser_batch.verification.auto import choose

TRIES = 4
"""How many processes may begin with a task: a machine may be lost, and more than one."""


class Opened(NamedTuple):
    """The engine that an actor of this cluster gets; it has the attributes of one, for the table's provenance."""

    name: str
    precision: str
    device: str
    reason: str
    """Why it was chosen."""


@dataclass(frozen=True)
class Plan:
    """What every actor is told."""

    folder: Path
    """Where relative paths start."""
    bundle: Path
    sha256: str
    opened: Opened
    threads: int
    segmentation: Segmentation
    config: RunConfig
    """Of the run, with workers and batch size for an actor's CPUs."""
    table: pa.Schema
    """Of the predictions, without the columns that are handed through."""
    content: Callable[[Recording], bytes | None]


def probe(bundle: Path, backend: str, precision: str | None, threads: int) -> Opened:
    """Choose and open an engine where the actors will run, and say which it is.

    Raises:
        SerError: the bundle is not there, or no engine is.
    """
    loaded = load_bundle(bundle)
    choice = choose(loaded, backend, precision)
    engine = open_engine(loaded, choice.backend, threads, choice.precision)
    try:
        return Opened(engine.name, engine.precision, engine.device, choice.reason)
    finally:
        engine.close()


class TaskScorer:
    """The stateful actor of a run: a task of recordings in, their rows out.

    Args:
        attempt: given the number of a task's first recording, counts how often the task was begun, all actors
            together: Ray would try a task that kills every process for ever.
    """

    def __init__(self, plan: Plan, attempt: Callable[[int], int] = lambda _: 1) -> None:
        self._plan, self._attempt = plan, attempt
        self._stopped = ""
        try:
            # There need be no such folder where every path is absolute.
            with suppress(OSError):
                os.chdir(plan.folder)
            self._scorer = _open(plan)
            self._pool = open_pool(plan.config, plan.segmentation)
        except SerError as error:
            # Told to the driver with the first task; an exception here would be tried again, on and on.
            self._stopped = _message(error)

    def __call__(self, task: pa.Table) -> pa.Table:
        """Score a task's recordings (see `tasks.SCHEMA`).

        Returns:
            the rows of each in order, with `NUMBER` and `SPENT`; or `STOPPED`, or `LOST`.
        """
        if self._attempt(task["first"][0].as_py()) > TRIES:
            return pa.table({LOST: [True]})
        if not self._stopped:
            try:
                return self._score(task)
            except SerError as error:
                self._stopped = _message(error)
            except Exception:
                self._stopped = traceback.format_exc()
        return pa.table({STOPPED: [self._stopped]})

    def _score(self, task: pa.Table) -> pa.Table:
        numbers, recordings = zip(*unpack(task), strict=True)
        progress = Progress(len(recordings))
        decoded = self._pool.decode(recordings, self._plan.content)
        batch_size = self._plan.config.batch_size or default_batch_on(self._plan.opened.device)
        batches: list[Any] = []
        # Rows come in the order of the recordings: the n-th that ends is the n-th of the task.
        places: list[int] = []
        place = 0
        # The engine has scored a clip when it was opened, so it is the recording's fault if it fails now.
        segmentation = self._plan.segmentation
        for segments, scores in score_segments(decoded, self._scorer, batch_size, progress, segmentation, proven=True):
            for segment in segments:
                places.append(place)
                place += segment.last
            labels, of_branches = self._scorer.labels, self._scorer.bundle.branch_labels
            batches.append(record_batch(self._plan.table, labels, segments, scores, branch_labels=of_branches))
        result = pa.Table.from_batches(batches).replace_schema_metadata()
        result = result.append_column(NUMBER, pa.array(np.asarray(numbers, np.int64)[places]))
        for stage, name in SPENT.items():
            result = result.append_column(name, pa.array(np.full(len(result), progress.spent[stage])))
        return result


def _message(error: SerError) -> str:
    """What the driver is told of an error: where it happened, and what is different there."""
    text = f"{socket.gethostname()}: {error}"
    if isinstance(error, StoreError):
        text = f"{text.rstrip('.')}. An actor has the environment in which `ray start` ran on its machine."
    return text


def _open(plan: Plan) -> Scorer:
    bundle = load_bundle(plan.bundle)
    if bundle.sha256 != plan.sha256:
        raise BundleError(
            f"{plan.bundle} is not the same bundle on every machine",
            got=bundle.sha256,
            expected=plan.sha256,
            remedy="Put one bundle where all machines read it, and name it with --bundle.",
        )
    batch = plan.config.batch_size or default_batch_on(plan.opened.device)
    wanted = plan.config.embeddings is not None
    engine = open_engine(bundle, plan.opened.name, plan.threads, plan.opened.precision, batch, embedding=wanted)
    if engine.device != plan.opened.device:
        raise EngineError("the machines differ", got=engine.device, expected=plan.opened.device)
    scorer = Scorer(bundle, engine, embedding=wanted)
    scorer.score(synthetic_clips(bundle.manifest.clip)[:1])
    return scorer
