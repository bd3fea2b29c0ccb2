"""`bench end-to-end`: the pipeline beside loops that a user would write around torch and around transformers.

All have the same weights and score the same clips; a pass begins with the recordings listed and the engine loaded, and
ends with a Parquet file. The loops decode with libsndfile in their own process, batch by batch: transformers' pipeline
takes file names only where ffmpeg is installed, and arrays with their rate everywhere, which it resamples.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.formats import differing, plain_loop
from bench.peers.compare import REFERENCE, TRANSFORMERS, engine_makers, open_engines
from bench.peers.models import Model
from bench.throughput import run_pipeline
from bench.timing import Series, check_equal, take, time_in_turns, warnings
from ser_batch.clips import Waveform
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import EngineError
from ser_batch.recordings.recording import Recording

_log = logging.getLogger(__name__)
LOOPS = (REFERENCE, TRANSFORMERS)
"""Engines that a plain loop runs; the pipeline runs all others."""


@dataclass(frozen=True)
class EndToEnd:
    """One engine, from the files to a table of labels."""

    label: str
    """Engine and precision, in a plain loop or in the pipeline."""
    device: str
    batch: int
    files: int
    seconds: Series
    """A pass over all files."""
    files_per_second: float
    """By the median pass."""
    speedup: dict[str, float]
    """Engine of a plain loop → median over the rounds of (that loop's seconds / this engine's)."""
    differing: int
    """Files that get another label than from the reference, the loop around torch."""
    unlabelled: int
    """Files that get no label, because they are silent to the pipeline."""
    max_difference: float
    """Largest |Δp| from the reference, on the first batch."""
    warnings: list[str]


def measure_end_to_end(
    model: Model,
    backends: tuple[str, ...],
    recordings: Sequence[Recording],
    clips: Waveform,
    *,
    workers: int,
    batch: int = 16,
    repeats: int = 3,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[EndToEnd], dict[str, str]]:
    """Label `recordings` with every engine, round by round; the first round is warm-up.

    Args:
        model: of one branch.
        clips: of `recordings`, (N, samples).

    Returns:
        The engines, and why others are missing.

    Raises:
        EngineError: the reference cannot run, or one in float32 computes or labels otherwise.
        AudioError: a recording cannot be read.
    """
    (target,) = model.branches
    makers = engine_makers(model, backends, target, threads=threads, batch=batch, torch=("eager fp32",))
    with ExitStack() as stack:
        first = take(clips, min(batch, len(clips)), 0)
        engines, missing = open_engines(makers, first, stack)
        differences = check_equal(engines, target, first)
        scorers = {label: Scorer(model.bundle, engine) for label, engine in engines.items()}
        label = partial(_label, recordings=recordings, batch=batch, workers=workers)
        rounds = []
        for turn in range(repeats + 1):
            rounds.append(_round(scorers, label, turn, clock))
            took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in rounds[-1].seconds.items())
            _log.info(f"round {turn + 1} of {repeats + 1}: {took}")
        found = [
            _measured(label, engine, rounds[1:], differences[label], batch=batch, files=len(recordings))
            for label, engine in engines.items()
        ]
    return found, missing


@dataclass(frozen=True)
class _Round:
    """One pass of every engine."""

    seconds: dict[str, float]
    differing: dict[str, int]
    unlabelled: dict[str, int]
    labels: int
    """Different labels among those of the reference."""


def _round(
    scorers: Mapping[str, Scorer], label: Callable[[str, Scorer, Path], None], turn: int, clock: Callable[[], float]
) -> _Round:
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: Path(folder) / f"{number}.parquet" for number, name in enumerate(scorers)}
        calls = {name: partial(label, name, scorers[name], tables[name]) for name in scorers}
        seconds = time_in_turns(calls, turn, clock)
        reference = pq.read_table(tables[REFERENCE], columns=["label"])
        return _Round(
            seconds,
            {name: differing(table, tables[REFERENCE]) for name, table in tables.items()},
            {name: pq.read_table(table, columns=["label"])["label"].null_count for name, table in tables.items()},
            len(reference["label"].unique()),
        )


def _label(name: str, scorer: Scorer, out: Path, *, recordings: Sequence[Recording], batch: int, workers: int) -> None:
    if name in LOOPS:
        plain_loop(recordings, scorer, out, batch)
    else:
        run_pipeline(recordings, scorer, out, batch=batch, workers=workers)


def _measured(
    label: str, engine: Engine, rounds: Sequence[_Round], max_difference: float, *, batch: int, files: int
) -> EndToEnd:
    others = max(each.differing[label] for each in rounds)
    if others and engine.precision == "fp32":
        raise EngineError(f"{label} does not label as {REFERENCE} does", got=f"{others} of {files} files", expected="0")
    seconds = Series.of([each.seconds[label] for each in rounds])
    notes = warnings({"total": seconds})
    if label == REFERENCE and rounds[0].labels == 1:
        notes.append("all files get one label, so equal labels prove little; max |Δp| says more")
    return EndToEnd(
        label=f"{label}, {'plain loop' if label in LOOPS else 'the pipeline'}",
        device=engine.device,
        batch=batch,
        files=files,
        seconds=seconds,
        files_per_second=files / seconds.median,
        speedup={
            loop: float(np.median([each.seconds[loop] / each.seconds[label] for each in rounds]))
            for loop in LOOPS
            if loop in rounds[0].seconds
        },
        differing=others,
        unlabelled=max(each.unlabelled[label] for each in rounds),
        max_difference=max_difference,
        warnings=notes,
    )
