"""`bench throughput`: files per second through the pipeline, beside the engine alone and the decoder alone.

CPU time counts the work itself, so it hardly changes when others use the machine. Where decoders and engine share the
cores, no pipeline is faster than the CPU time of both allows.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.archive import link_recordings, read_clips
from bench.backends import identity, open_backend
from bench.processes import cpu_seconds, peak_resident, reset_peak, run_archive
from bench.timing import Series, take, warnings
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation, Waveform
from ser_batch.decode.segments import decode
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import InputError
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.local import LocalExecutor, default_workers, open_pool
from ser_batch.pipeline.progress import Listener
from ser_batch.pipeline.run import run
from ser_batch.pipeline.summary import RunSummary
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings

_log = logging.getLogger(__name__)
ENOUGH = 480
"""Clips scored to know the rate of the engine alone."""
IN_MEMORY = 64
"""Clips held in memory for the engine alone, scored in turn."""
FEW = 64
"""Files decoded to know the CPU time of one."""


@dataclass(frozen=True)
class EngineAlone:
    """The scorer without decoding, on clips in memory."""

    clips_per_second: float
    cpu_seconds: float
    """CPU time per clip, of all threads."""


@dataclass(frozen=True)
class Throughput:
    """One backend with one number of decode workers, on all the files given."""

    bundle: str
    backend: str
    precision: str
    device: str
    workers: int
    batch: int
    files: int
    failures: int
    audio_hours: float
    """Of the recordings' sound that was scored in one pass."""
    seconds: Series
    """Of a pass, from listing in hand to the finished Parquet file."""
    files_per_second: float
    """By the median pass, like all rates here."""
    audio_hours_per_second: float
    decode_files_per_second: float
    """The same files through the same workers, without engine and table."""
    engine_clips_per_second: float
    """The scorer alone on clips in memory, in batches of the same size."""
    engine_share: float
    """Files per second of the pipeline over clips per second of the engine alone."""
    startup_seconds: float
    """From the start of a pass to its first batch's rows, less what that batch takes at the steady rate."""
    finish_seconds: float
    """From the last batch's rows to the finished file."""
    steady_files_per_second: float
    """From the first batch's rows to those of the last; of all files where there is only one batch."""
    steady_share: float
    """The same over the rate of the engine alone."""
    cpu_seconds: dict[str, float]
    """CPU time per clip: of the engine alone, of decoding alone, and of the pipeline with all its processes."""
    bottleneck: tuple[str, float]
    """The stage that took most of the last pass, as the run's summary names it, and its share."""
    peak_rss: int
    """Bytes, of the process that scores, without its decode processes."""
    warnings: list[str]


@dataclass(frozen=True)
class MemoryPoint:
    """Memory of a whole `ser-batch run`, started afresh."""

    files: int
    seconds: float
    peak_rss: int
    """Bytes, of the largest of its processes."""


def run_pipeline(
    recordings: Sequence[Recording],
    scorer: Scorer,
    out: Path,
    *,
    batch: int,
    workers: int,
    listener: Listener | None = None,
) -> RunSummary:
    """Score `recordings` to the Parquet file `out` as `ser-batch run` does."""
    given = recordings if isinstance(recordings, Recordings) else Recordings.of(recordings)
    config = RunConfig(given, out, batch_size=batch, workers=workers)
    return run(config, LocalExecutor(scorer), lambda _: nullcontext(listener)).summary


def measure_throughput(
    bundle: Bundle,
    recordings: Sequence[Recording],
    backends: Sequence[str],
    *,
    workers: Sequence[int] = (),
    batch: int = 16,
    repeats: int = 3,
    threads: int | None = None,
) -> Iterator[Throughput]:
    """One figure for each backend and number of workers; the first pass of each backend is warm-up.

    Args:
        workers: none means as many as `ser-batch run` would start.

    Raises:
        InputError: no recording can be read.
    """
    clips, _ = read_clips(recordings, bundle.manifest.clip, IN_MEMORY)
    for backend in backends:
        reset_peak()
        engine = open_backend(bundle, backend, threads, batch)
        try:
            alone = measure_engine_alone(bundle, engine, clips, batch, min(len(recordings), ENOUGH))
            _log.info(f"{backend}: {alone.clips_per_second:.1f} clips/s, the engine alone")
            for count in workers or (None,):
                yield measure_pipeline(bundle, engine, recordings, alone, workers=count, batch=batch, repeats=repeats)
        finally:
            engine.close()


def measure_engine_alone(bundle: Bundle, engine: Engine, clips: Waveform, batch: int, count: int) -> EngineAlone:
    """The scorer on at least `count` clips in memory after one batch of warm-up, by the median batch."""
    scorer = Scorer(bundle, engine)
    scorer.score(take(clips, batch, 0))
    turns = max(3, -(-count // batch))
    times = []
    used = cpu_seconds()
    for turn in range(turns):
        waveform = take(clips, batch, turn)
        started = time.perf_counter()
        scorer.score(waveform)
        times.append(time.perf_counter() - started)
    return EngineAlone(batch / Series.of(times).median, (cpu_seconds() - used) / turns / batch)


def measure_pipeline(
    bundle: Bundle,
    engine: Engine,
    recordings: Sequence[Recording],
    alone: EngineAlone,
    *,
    workers: int | None,
    batch: int,
    repeats: int,
) -> Throughput:
    """The pipeline around an open engine, which `alone` was measured of."""
    scorer, passes, workers = Scorer(bundle, engine), [], workers or default_workers()
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            done, summary = _pass(recordings, scorer, Path(folder) / f"{turn}.parquet", batch, workers)
            passes.append(done)
            _log.info(f"{engine.name}, {workers} workers, pass {turn + 1} of {repeats + 1}: {summary.seconds:.2f} s")
    seconds, start, finish, steady, used = (Series.of(raw) for raw in zip(*passes[1:], strict=True))
    rate = len(recordings) / seconds.median
    return Throughput(
        **identity(bundle, engine),
        workers=workers,
        batch=batch,
        files=len(recordings),
        failures=summary.statuses.get("error", 0),
        audio_hours=summary.audio_hours,
        seconds=seconds,
        files_per_second=rate,
        audio_hours_per_second=summary.audio_hours / seconds.median,
        decode_files_per_second=decode_rate(bundle, recordings, workers, batch, repeats),
        engine_clips_per_second=alone.clips_per_second,
        engine_share=rate / alone.clips_per_second,
        startup_seconds=start.median,
        finish_seconds=finish.median,
        steady_files_per_second=steady.median,
        steady_share=steady.median / alone.clips_per_second,
        cpu_seconds={
            "engine": alone.cpu_seconds,
            "decode": decode_cpu(bundle, recordings),
            "pipeline": used.median / len(recordings),
        },
        bottleneck=summary.bottleneck,
        peak_rss=peak_resident(),
        warnings=warnings({"total": seconds}),
    )


def _pass(
    recordings: Sequence[Recording], scorer: Scorer, out: Path, batch: int, workers: int
) -> tuple[tuple[float, float, float, float, float], RunSummary]:
    """One run and its summary: seconds in all, of start and end, files per second between them, CPU seconds."""
    marks: list[tuple[float, int]] = []
    used = cpu_seconds()
    summary = run_pipeline(
        recordings,
        scorer,
        out,
        batch=batch,
        workers=workers,
        listener=lambda progress: marks.append((progress.seconds, progress.files)),
    )
    (first, few), (last, all_) = marks[0], marks[-1]
    steady = (all_ - few) / (last - first) if all_ > few else all_ / last
    times = (summary.seconds, first - few / steady, summary.seconds - last, steady, cpu_seconds() - used)
    return times, summary


def decode_rate(bundle: Bundle, recordings: Sequence[Recording], workers: int, batch: int, repeats: int) -> float:
    """Files per second of the decode stage alone, by the median pass; the start of its processes does not count."""
    raw = []
    for _ in range(repeats):
        config = RunConfig((), "", batch_size=batch, workers=workers)
        with open_pool(config, Segmentation(bundle.manifest.clip)) as pool:
            started = time.perf_counter()
            for _ in pool.decode(recordings):
                pass
            raw.append(time.perf_counter() - started)
    return len(recordings) / Series.of(raw).median


def decode_cpu(bundle: Bundle, recordings: Sequence[Recording]) -> float:
    """Seconds of CPU time that decoding a file takes in this process, by the median file."""
    segmentation = Segmentation(bundle.manifest.clip)
    raw = []
    for recording in recordings[:FEW]:
        started = time.process_time()
        for _ in decode(recording, segmentation):
            pass
        raw.append(time.process_time() - started)
    return Series.of(raw).median


def measure_memory(
    recordings: Sequence[Recording], counts: Sequence[int], bundle: Path, backend: str
) -> Iterator[MemoryPoint]:
    """Memory against the number of files: `ser-batch run` on folders of `counts` links to the files given.

    Args:
        backend: "name" or "name:precision".

    Raises:
        InputError: a count below 1.
        EngineError: a run failed as a whole.
    """
    if min(counts, default=1) < 1:
        raise InputError("a number of files must be at least 1", got=min(counts))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            link_recordings(recordings, Path(folder) / "audio", count)
            done = run_archive(Path(folder), bundle, backend, "--quiet")
            _log.info(f"{count} files in a process of its own: {done.seconds:.2f} s")
            yield MemoryPoint(count, done.seconds, done.peak_rss)
