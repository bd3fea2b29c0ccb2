"""What runs on a machine of the cluster: a bundle in an engine, and decode processes, behind one call a task.

Decoding has processes of its own here, too: a recording that crashes a decoder is a row, and the actor lives on.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.decode.source import Decoded
from ser_batch.distributed.parcels import unpack
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import BundleError, EngineError, SerError, StoreError
from ser_batch.output.predictions import record_batch
from ser_batch.recordings.sources import Source
from ser_batch.run.pipeline import Settings
from ser_batch.run.progress import Tally
from ser_batch.run.scoring import score_all
from ser_batch.verification.auto import choose

NUMBER = "ray_number"
"""Column of an answer: the number of the row's recording in the run."""
SPENT = {"decode": "ray_decode", "engine": "ray_engine"}
"""Stage -> column, the same in every row: seconds that the task waited for it."""
STOPPED = "ray_stopped"
"""The only column of an answer that says why there can be none."""
LOST = "ray_lost"
"""The only column of an answer that gives a task up, since process after process was lost with it."""
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
    hearing: Hearing
    settings: Settings
    table: pa.Schema
    """Of the predictions, without the columns that are handed through."""
    content: Callable[[Source], bytes | None]


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
            self._pool = plan.settings.open_pool(plan.hearing)
        except SerError as error:
            # Told to the driver with the first task; an exception here would be tried again, on and on.
            self._stopped = _told(error)

    def __call__(self, task: pa.Table) -> pa.Table:
        """Score a task's recordings (see `parcels.SCHEMA`).

        Returns:
            the rows of each in order, with `NUMBER` and `SPENT`; or `STOPPED`, or `LOST`.
        """
        if self._attempt(task["first"][0].as_py()) > TRIES:
            return pa.table({LOST: [True]})
        if not self._stopped:
            try:
                return self._score(task)
            except SerError as error:
                self._stopped = _told(error)
            except Exception:
                self._stopped = traceback.format_exc()
        return pa.table({STOPPED: [self._stopped]})

    def _score(self, task: pa.Table) -> pa.Table:
        numbers, sources = zip(*unpack(task), strict=True)
        tally = Tally(len(sources))
        decoded = _Numbered(self._pool.decode(sources, self._plan.content))
        batch_size = self._plan.settings.batch(self._plan.opened.device)
        batches: list[Any] = []
        # The engine has scored a clip when it was opened, so it is the recording's fault if it fails now.
        for rows, scores in score_all(decoded, self._scorer, batch_size, tally, proven=True):
            batches.append(record_batch(self._plan.table, self._scorer.labels, rows, scores))
        answer = pa.Table.from_batches(batches).replace_schema_metadata()
        # Rows come in the order of the recordings: the n-th that ends is the n-th of the task.
        answer = answer.append_column(NUMBER, pa.array(np.asarray(numbers, np.int64)[decoded.places]))
        for stage, name in SPENT.items():
            answer = answer.append_column(name, pa.array(np.full(len(answer), tally.spent[stage])))
        return answer


class _Numbered:
    """Decoded rows as they are, noting for each at which place of the task its recording is."""

    def __init__(self, decoded: Iterator[tuple[Decoded, Any]]) -> None:
        self._decoded = decoded
        self.places: list[int] = []

    def __iter__(self) -> Iterator[tuple[Decoded, Any]]:
        place = 0
        for row, waveform in self._decoded:
            self.places.append(place)
            place += row.last
            yield row, waveform


def _told(error: SerError) -> str:
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
    batch = plan.settings.batch(plan.opened.device)
    engine = open_engine(bundle, plan.opened.name, plan.threads, plan.opened.precision, batch)
    if engine.device != plan.opened.device:
        raise EngineError("the machines differ", got=engine.device, expected=plan.opened.device)
    scorer = Scorer(bundle, engine)
    scorer.score(synthetic_clips(bundle.manifest.clip)[:1])
    return scorer
