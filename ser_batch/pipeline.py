"""The run: decode threads, a bounded queue, batches through the scorer, atomic parts, one table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ser_batch.decode import ABSENT, Decoded, decode_all, source_version
from ser_batch.errors import EngineError, InputError
from ser_batch.parts import Parts, check_output
from ser_batch.predictions import record_batch, schema
from ser_batch.scorer import Scorer, Scores
from ser_batch.sources import Source
from ser_batch.summary import RunSummary, summarise

__all__ = ["Progress", "RunSummary", "default_workers", "run", "score_all"]

BATCH_SIZE = 16
"""Clips scored together unless told otherwise."""
MAX_WORKERS = 32
"""Decode threads at most unless told otherwise: beyond, Python's own lock binds them."""

Progress = Callable[[int, int, float], None]
"""Called after each batch with what it brought: rows, those of them that failed, seconds of sound scored."""
Scored = tuple[list[Decoded], Scores]
"""Outcomes in order, and a row of scores for each of them that has no error."""


def run(
    sources: Sequence[Source],
    scorer: Scorer,
    out: Path,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    branch_columns: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Score the clip of each source, and write one row a source, in that order, to the Parquet file `out`.

    A recording that cannot be read or scored is a row with `status` "error". Rows go to `<out>.parts/` first;
    `out` appears, whole, at the end. An interrupted run leaves the rows it has for `resume`.

    Args:
        batch_size: clips scored together; None: 16.
        workers: decode threads; None: one for each CPU that this process may use.
        branch_columns: whether the table has the branches' own probabilities.
        overwrite: replace an existing output, and delete an unfinished one.
        resume: go on with an unfinished output; rows whose input has changed since are made again.

    Raises:
        InputError: no sources, or a number below 1.
        OutputError: see `check_output` and `Parts`.
        EngineError: the engine failed before it scored anything.
    """
    started = time.perf_counter()
    size, threads = batch_size or BATCH_SIZE, workers or default_workers()
    if not sources or min(size, threads) < 1:
        raise InputError("a run needs sources, a batch size and workers", got=(len(sources), size, threads))
    check_output(out, overwrite=overwrite, resume=resume)
    table = schema(scorer.bundle, scorer.engine, branch_columns=branch_columns)
    parts = Parts(out, table, resume=resume and not overwrite)
    rows, heard = 0, 0.0
    try:
        todo = _unfinished(sources, parts)
        decoded = decode_all(todo, scorer.bundle.manifest.clip, workers=threads, ahead=2 * size + threads)
        with closing(decoded):
            for outcomes, scores in score_all(decoded, scorer, size):
                parts.append(record_batch(parts.schema, scorer.labels, outcomes, scores))
                sound = sum(done.clip.end - done.clip.start for done in outcomes if done.clip)
                rows, heard = rows + len(outcomes), heard + sound
                if progress is not None:
                    progress(len(outcomes), sum(done.clip is None for done in outcomes), sound)
        parts.finish([source.file for source in sources])
    except KeyboardInterrupt:
        parts.flush()
        raise
    finally:
        parts.close()
    seconds = time.perf_counter() - started
    return summarise(out, scorer.labels, rows=rows, audio_seconds=heard, seconds=seconds)


def score_all(decoded: Iterable[Decoded], scorer: Scorer, batch_size: int) -> Iterator[Scored]:
    """Gather clips into batches and score them; outcomes keep their order, failed ones in their places.

    Raises:
        EngineError: the engine failed before it scored anything; later, a clip at which it fails when alone
            becomes an error.
    """
    buffer = np.empty((batch_size, scorer.bundle.manifest.clip.samples), dtype=np.float32)
    outcomes: list[Decoded] = []
    filled = 0
    proven = False
    for outcome in decoded:
        outcomes.append(outcome)
        if outcome.clip is not None:
            buffer[filled] = outcome.clip.waveform
            filled += 1
        # A long stretch of failures is let go, too, without a clip to score.
        if filled == batch_size or len(outcomes) >= 8 * batch_size:
            yield _score(outcomes, buffer[:filled], scorer, proven)
            proven = proven or filled > 0
            outcomes, filled = [], 0
    if outcomes:
        yield _score(outcomes, buffer[:filled], scorer, proven)


def _score(outcomes: list[Decoded], waveform: np.ndarray, scorer: Scorer, proven: bool) -> Scored:
    try:
        return outcomes, scorer.score(waveform)
    except EngineError:
        # Which clip is it? If it is all of them, and no other has ever been scored, it is the engine.
        results = [_score_alone(outcome, scorer) for outcome in outcomes]
        if not proven and not any(done.clip for done, _ in results):
            raise
    kept = [scores for _, scores in results if scores is not None]
    empty = scorer.score(waveform[:0])
    return [done for done, _ in results], Scores(
        np.concatenate([empty.fused, *(scores.fused for scores in kept)]),
        {
            name: np.concatenate([rows, *(scores.branches[name] for scores in kept)])
            for name, rows in empty.branches.items()
        },
    )


def _score_alone(outcome: Decoded, scorer: Scorer) -> tuple[Decoded, Scores | None]:
    if outcome.clip is None:
        return outcome, None
    try:
        return outcome, scorer.score(outcome.clip.waveform[None])
    except EngineError as error:
        return Decoded(outcome.source, outcome.version, None, str(error)), None


def default_workers() -> int:
    """One decode thread for each CPU that this process may use, and no more than `MAX_WORKERS`."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, MAX_WORKERS)


def _unfinished(sources: Sequence[Source], parts: Parts) -> Iterator[Source]:
    """Sources without a row, or whose row is about another version of the input; absent ones are retried."""
    done = parts.done()
    for source in sources:
        version = done.get(source.file, ABSENT)
        if version == ABSENT or version != source_version(source):
            yield source
