"""What a run asks of the place where its recordings are decoded and scored."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation
from ser_batch.engines.protocol import EngineIdentity
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.progress import Progress
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings


class Scored(NamedTuple):
    """Some rows of the output."""

    batch: Any
    """pyarrow.RecordBatch of the output's schema; the rows of one recording come together."""
    files: int
    """Recordings whose last row is among them."""
    complete: bool = True
    """Whether there are no more rows to come about the recording of the last row."""


class Scoring(Protocol):
    """An executor at work: a bundle in an engine, somewhere."""

    bundle: Bundle
    segmentation: Segmentation
    engine: EngineIdentity
    description: str
    """Runtime, precision and device, in words."""
    reason: str
    """Why these were chosen: one clause."""

    def score(self, recordings: Iterator[Recording], table: pa.Schema, progress: Progress) -> Generator[Scored]:
        """Make rows of `table` for recordings; what goes wrong with one of them is its row.

        Raises:
            EngineError: the engine failed before it scored anything.
            StoreError: an object store is away.
        """


class Executor(Protocol):
    """Where recordings are decoded and scored: on this machine, on a Ray cluster."""

    def open(self, config: RunConfig, recordings: Recordings) -> AbstractContextManager[Scoring]:
        """Load the bundle into an engine.

        Raises:
            BundleError: the bundle is damaged.
            EngineError: no engine can run it here.
        """
