"""Decoding in processes of this machine, scoring in this one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import SPLIT, Segmentation, Waveform
from ser_batch.decode.pool import DecodePool
from ser_batch.decode.process import DecodeProcess
from ser_batch.engines.protocol import EngineIdentity, open_engine
from ser_batch.engines.scorer import Scorer, Scores
from ser_batch.engines.streams import MICRO_BATCH
from ser_batch.errors import EngineError
from ser_batch.machine import usable_cpus
from ser_batch.output.schema import record_batch
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.executor import Scored
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.whole import concatenated, one_row_each
from ser_batch.recordings.recording import Recording, Segment, current_version
from ser_batch.recordings.table import Recordings
from ser_batch.storage.urls import is_url
from ser_batch.verification.auto import choose

BATCH_SIZE = 16
"""Clips scored together on a CPU of few cores, where more gain nothing and cost memory."""
GPU_BATCH_SIZE = 64
BYTES_OF_A_CLIP = 300_000
"""Of a recording as most are stored; it is only guessed whether there are many clips to score."""
MAX_WORKERS = 32
"""Decode processes at most unless told otherwise: beyond, the one process that scores binds them."""


class LocalExecutor:
    """Runs on this machine.

    Args:
        scorer: a bundle in an engine that is open already, and stays so; None: what the configuration names is
            opened, and closed at the end.
        process: a decode process that has been started already, for the run to begin with, and to end.
    """

    def __init__(self, scorer: Scorer | None = None, process: DecodeProcess | None = None) -> None:
        self._scorer, self._process = scorer, process

    @contextmanager
    def open(self, config: RunConfig, recordings: Recordings) -> Iterator[LocalScoring]:
        """See `executor.Executor`."""
        if self._scorer is not None:
            segmentation = config.segmentation(self._scorer.bundle.manifest.clip)
            with open_pool(config, segmentation) as pool:
                yield LocalScoring(config, recordings, self._scorer, pool, segmentation, "as given")
            return
        bundle = load_bundle(config.bundle)
        if config.embeddings is not None:
            bundle.embedding()  # refused before any work
        segmentation = config.segmentation(bundle.manifest.clip)
        # The decode processes start while the engine is loaded, which takes as long.
        with open_pool(config, segmentation, self._process) as pool:
            choice = choose(bundle, config.backend, config.precision)
            batch = usual_batch(config, recordings)
            wanted = config.embeddings is not None
            engine = open_engine(bundle, choice.backend, config.threads, choice.precision, batch, embedding=wanted)
            with closing(engine):
                scorer = Scorer(bundle, engine, embedding=wanted)
                yield LocalScoring(config, recordings, scorer, pool, segmentation, choice.reason)


class LocalScoring:
    """A scorer and decode processes, at work; see `executor.Scoring`."""

    def __init__(
        self,
        config: RunConfig,
        recordings: Recordings,
        scorer: Scorer,
        pool: DecodePool,
        segmentation: Segmentation,
        reason: str,
    ) -> None:
        self.bundle: Bundle = scorer.bundle
        self.engine: EngineIdentity = scorer.engine
        self.segmentation = segmentation
        self.description = f"{scorer.engine.name} {scorer.engine.precision}, {scorer.engine.device}"
        self.reason = reason
        self._scorer, self._pool, self._recordings = scorer, pool, recordings
        self._batch_size = config.batch_size or default_batch_on(scorer.engine.device)

    def score(self, recordings: Iterator[Recording], table: pa.Schema, progress: Progress) -> Generator[Scored]:
        """See `executor.Scoring`."""
        extra = self._recordings.extra
        with closing(self._pool.decode(recordings, self._recordings.content)) as decoded:
            for segments, scores in score_segments(
                decoded, self._scorer, self._batch_size, progress, self.segmentation
            ):
                with progress.stage("write"):
                    of_branches = self.bundle.branch_labels
                    batch = record_batch(table, self._scorer.labels, segments, scores, extra, branch_labels=of_branches)
                yield Scored(batch, sum(segment.last for segment in segments), segments[-1].last)


@dataclass
class _Batch:
    """Segments in order, and the waveforms of those to be scored."""

    segments: list[Segment]
    waveform: Waveform


def score_segments(
    decoded: Iterable[tuple[Segment, Waveform | None]],
    scorer: Scorer,
    batch_size: int,
    progress: Progress,
    segmentation: Segmentation,
    *,
    proven: bool = False,
) -> Iterator[tuple[list[Segment], Scores]]:
    """Gather clips into batches and score them; segments keep their order, those without a clip in their places.

    Args:
        segmentation: whether the windows of a recording are one row.
        proven: whether this engine has scored something before.

    Yields:
        segments in order, and a row of scores for each of them whose status is "ok".

    Raises:
        EngineError: the engine failed before it scored anything; later, a clip at which it fails when alone
            becomes an error.
    """
    scored = _scored(decoded, scorer, batch_size, progress, proven)
    return one_row_each(scored, split=segmentation.channels == SPLIT) if segmentation.whole else scored


def _scored(
    decoded: Iterable[tuple[Segment, Waveform | None]],
    scorer: Scorer,
    batch_size: int,
    progress: Progress,
    proven: bool,
) -> Iterator[tuple[list[Segment], Scores]]:
    for batch in _batches(decoded, scorer.bundle.manifest.clip.samples, batch_size, progress):
        with progress.stage("engine"):
            scored = _score(batch, scorer, proven)
        yield scored
        progress.reach(batch.segments[-1])
        proven = proven or len(batch.waveform) > 0


def _batches(
    decoded: Iterable[tuple[Segment, Waveform | None]], samples: int, batch_size: int, progress: Progress
) -> Iterator[_Batch]:
    buffer = np.empty((batch_size, samples), dtype=np.float32)
    segments: list[Segment] = []
    filled = 0
    iterator = iter(decoded)
    while True:
        with progress.stage("decode"):
            item = next(iterator, None)
        if item is None:
            break
        segment, waveform = item
        segments.append(segment)
        if waveform is not None:
            buffer[filled] = waveform
            filled += 1
        # A long stretch without clips is let go, too.
        if filled == batch_size or len(segments) >= 8 * batch_size:
            yield _Batch(segments, buffer[:filled])
            segments, filled = [], 0
    if segments:
        yield _Batch(segments, buffer[:filled])


def _score(batch: _Batch, scorer: Scorer, proven: bool) -> tuple[list[Segment], Scores]:
    try:
        return batch.segments, scorer.score(batch.waveform)
    except EngineError:
        # Which clip is it? If it is all of them, and no other has ever been scored, it is the engine.
        alone = [_score_alone(clip[None], scorer) for clip in batch.waveform]
        scored = [scores for scores in alone if isinstance(scores, Scores)]
        if not proven and not scored:
            raise
    outcomes = iter(alone)
    segments = [each if each.status != "ok" else _with_outcome(each, next(outcomes)) for each in batch.segments]
    return segments, concatenated([scorer.score(batch.waveform[:0]), *scored])


def _score_alone(waveform: Waveform, scorer: Scorer) -> Scores | str:
    try:
        return scorer.score(waveform)
    except EngineError as error:
        return str(error)


def _with_outcome(segment: Segment, outcome: Scores | str) -> Segment:
    return segment._replace(status="error", error=outcome) if isinstance(outcome, str) else segment


def open_pool(config: RunConfig, segmentation: Segmentation, first: DecodeProcess | None = None) -> DecodePool:
    """Start decoding; worth doing before the engine is loaded, since it takes as long."""
    workers = config.workers or default_workers()
    prefetch = 2 * (config.batch_size or default_batch()) + workers
    return DecodePool(segmentation, workers=workers, prefetch=prefetch, timeout=config.file_timeout, first=first)


def usual_batch(config: RunConfig, recordings: Recordings) -> int:
    """What an engine on a CPU is opened for: a run of a few recordings never fills a batch, unless they are long."""
    batch = config.batch_size or default_batch()
    if config.window is not None or len(recordings) >= batch:
        return batch
    sizes = [current_version(each)[0] for each in recordings if not is_url(each.path)]
    return min(batch, max(1, len(recordings) + sum(max(0, size) // BYTES_OF_A_CLIP for size in sizes)))


def default_workers(cpus: int | None = None) -> int:
    """One decode process for each of so many CPUs (those that this process may use), and at most `MAX_WORKERS`.

    How many of them are started is the run's to find out: where the engine is slow, few.
    """
    return min(cpus or usable_cpus(), MAX_WORKERS)


def default_batch(cpus: int | None = None) -> int:
    """Two micro-batches for each stream that an engine can have on so many CPUs, and at least `BATCH_SIZE`."""
    return max(BATCH_SIZE, 2 * MICRO_BATCH * (cpus or usable_cpus()))


def default_batch_on(device: str, cpus: int | None = None) -> int:
    """Clips scored together on a device unless told otherwise."""
    return default_batch(cpus) if device.startswith("cpu") else GPU_BATCH_SIZE
