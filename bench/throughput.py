"""End to end through `ser_batch.run.pipeline`: files a second, beside the bare engine and the bare decoder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.archive import link_recordings, run_archive
from bench.backends import identity, open_backend
from bench.bare import Bare, bare_rate, cpu_seconds, decode_cpu, decode_rate
from bench.memory import peak_resident, reset_peak
from bench.samples import Series, warnings
from bench.targets import read_clips
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import InputError
from ser_batch.recordings.sources import Source
from ser_batch.run.pipeline import RunSummary, Settings, run

ENOUGH = 480
"""Clips scored to know the bare engine."""
BARE_CLIPS = 64
"""Clips held in memory for the bare engine, scored in turn."""


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
    """Of the recordings' sound that the model heard, in one pass."""
    seconds: Series
    """A pass, from listing in hand to the finished Parquet file."""
    files_per_second: float
    """By the median pass, like all rates here."""
    audio_hours_per_second: float
    decode_files_per_second: float
    """The same files through the same workers, without engine and table."""
    engine_clips_per_second: float
    """The scorer alone on clips in memory, in batches of the same size."""
    engine_share: float
    """Files a second of the pipeline over those of the bare engine."""
    startup_seconds: float
    """From the start of a pass to its first batch's rows, less what that batch takes at the steady rate."""
    finish_seconds: float
    """From the last batch's rows to the finished file."""
    steady_files_per_second: float
    """From the first batch's rows to those of the last; all files, where there is but one batch."""
    steady_share: float
    """The same over the bare engine's rate."""
    cpu_seconds: dict[str, float]
    """CPU time a clip: of the engine alone, of decoding alone, and of the pipeline with all its processes."""
    bottleneck: tuple[str, float]
    """The stage that took most of the last pass, as the run's summary names it, and its share."""
    peak_rss: int
    """Bytes, of the process that scores; its decoders are others."""
    warnings: list[str]


@dataclass(frozen=True)
class MemoryPoint:
    """Memory of a whole `ser-batch run`, started afresh."""

    files: int
    seconds: float
    peak_rss: int
    """Bytes, of the largest of its processes."""


def measure_throughput(
    bundle: Bundle,
    sources: Sequence[Source],
    backends: Sequence[str],
    *,
    workers: Sequence[int],
    batch: int = 16,
    repeats: int = 3,
    threads: int | None = None,
) -> Iterator[Throughput]:
    """One figure for each backend and number of workers; the first pass of each backend is warm-up.

    Raises:
        InputError: no recording can be read.
    """
    clips, _ = read_clips(sources, bundle.manifest.clip, BARE_CLIPS)
    for backend in backends:
        reset_peak()
        engine = open_backend(bundle, backend, threads, batch)
        try:
            bare = bare_rate(Scorer(bundle, engine), clips, batch, min(len(sources), ENOUGH))
            for count in workers:
                yield measure_pipeline(bundle, engine, sources, workers=count, batch=batch, repeats=repeats, bare=bare)
        finally:
            engine.close()


def measure_pipeline(
    bundle: Bundle, engine: Engine, sources: Sequence[Source], *, workers: int, batch: int, repeats: int, bare: Bare
) -> Throughput:
    """The pipeline around an open engine, `bare` being that engine on its own."""
    scorer, passes = Scorer(bundle, engine), []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            done, summary = _pass(
                sources, scorer, Path(folder) / f"{turn}.parquet", Settings(batch_size=batch, workers=workers)
            )
            passes.append(done)
    seconds, start, finish, steady, used = (Series.of(raw) for raw in zip(*passes[1:], strict=True))
    rate = len(sources) / seconds.median
    return Throughput(
        **identity(bundle, engine),
        workers=workers,
        batch=batch,
        files=len(sources),
        failures=summary.statuses.get("error", 0),
        audio_hours=summary.audio_hours,
        seconds=seconds,
        files_per_second=rate,
        audio_hours_per_second=summary.audio_hours / seconds.median,
        decode_files_per_second=decode_rate(bundle, sources, workers, batch, repeats),
        engine_clips_per_second=bare.clips_per_second,
        engine_share=rate / bare.clips_per_second,
        startup_seconds=start.median,
        finish_seconds=finish.median,
        steady_files_per_second=steady.median,
        steady_share=steady.median / bare.clips_per_second,
        cpu_seconds={
            "engine": bare.cpu_seconds,
            "decode": decode_cpu(bundle, sources),
            "pipeline": used.median / len(sources),
        },
        bottleneck=summary.bottleneck,
        peak_rss=peak_resident(),
        warnings=warnings({"total": seconds}),
    )


def _pass(
    sources: Sequence[Source], scorer: Scorer, out: Path, settings: Settings
) -> tuple[tuple[float, float, float, float, float], RunSummary]:
    """One run: seconds in all, of the start and of the end, files a second between them, CPU seconds; its summary."""
    marks: list[tuple[float, int]] = []
    used = cpu_seconds()
    summary = run(
        sources, scorer, out, settings=settings, progress=lambda tally: marks.append((tally.seconds, tally.files))
    )
    (first, few), (last, all_) = marks[0], marks[-1]
    steady = (all_ - few) / (last - first) if all_ > few else all_ / last
    times = (summary.seconds, first - few / steady, summary.seconds - last, steady, cpu_seconds() - used)
    return times, summary


def measure_memory(
    sources: Sequence[Source], counts: Sequence[int], bundle: Path | None, backend: str
) -> Iterator[MemoryPoint]:
    """Memory against the number of files: `ser-batch run` on folders of so many links to the files given.

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
            link_recordings(sources, Path(folder) / "audio", count)
            done = run_archive(Path(folder), bundle, backend, "--quiet")
            yield MemoryPoint(count, done.seconds, done.peak_rss)
