"""Runs over recordings that a test has found, with an engine that it has opened."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ser_batch.engines.scorer import Scorer
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.local import LocalExecutor
from ser_batch.pipeline.progress import Listener
from ser_batch.pipeline.run import run
from ser_batch.pipeline.summary import RunSummary
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings


def score(
    recordings: Iterable[Recording], scorer: Scorer, out: Path | str, *, listener: Listener | None = None, **config: Any
) -> RunSummary:
    """Score recordings with an open engine; `config` goes to `RunConfig`."""
    found = recordings if isinstance(recordings, Recordings) else Recordings.of(recordings)
    return run(RunConfig(found, out, **config), LocalExecutor(scorer), lambda total: nullcontext(listener)).summary
