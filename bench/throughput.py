"""End to end through `ser_batch.run.pipeline`: files a second, beside the bare engine and the bare decoder."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.backends import open_backend
from bench.memory import peak_resident, reset_peak
from bench.processes import SER_BATCH, run_process
from bench.samples import Series, warnings
from bench.targets import read_clips, take
from ser_batch.audio.hearing import Hearing
from ser_batch.clip import Waveform
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import InputError
from ser_batch.inputs.sources import Source
from ser_batch.model.bundle import Bundle
from ser_batch.run.pipeline import Settings, run

BARE_CLIPS = 64
"""Clips held in memory for the bare engine, scored in turn."""
SOME_FAILED = 3
"""Exit code of `ser-batch run` where recordings, not the run, are bad."""


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
            bare = bare_rate(Scorer(bundle, engine), clips, batch, len(sources))
            for count in workers:
                yield measure_pipeline(bundle, engine, sources, workers=count, batch=batch, repeats=repeats, bare=bare)
        finally:
            engine.close()


def measure_pipeline(
    bundle: Bundle, engine: Engine, sources: Sequence[Source], *, workers: int, batch: int, repeats: int, bare: float
) -> Throughput:
    """The pipeline around an open engine, `bare` being that engine's own clips a second."""
    scorer, raw = Scorer(bundle, engine), []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            out = Path(folder) / f"{turn}.parquet"
            summary = run(sources, scorer, out, settings=Settings(batch_size=batch, workers=workers))
            raw.append(summary.seconds)
    seconds = Series.of(raw[1:])
    rate = len(sources) / seconds.median
    return Throughput(
        bundle=bundle.id,
        backend=engine.name,
        precision=engine.precision,
        device=engine.device,
        workers=workers,
        batch=batch,
        files=len(sources),
        failures=summary.statuses.get("error", 0),
        audio_hours=summary.audio_hours,
        seconds=seconds,
        files_per_second=rate,
        audio_hours_per_second=summary.audio_hours / seconds.median,
        decode_files_per_second=decode_rate(bundle, sources, workers, batch, repeats),
        engine_clips_per_second=bare,
        engine_share=rate / bare,
        peak_rss=peak_resident(),
        warnings=warnings({"total": seconds}),
    )


def bare_rate(scorer: Scorer, clips: Waveform, batch: int, count: int) -> float:
    """Clips a second of `scorer` alone, over at least `count` clips after one batch of warm-up."""
    scorer.score(take(clips, batch, 0))
    turns = max(3, -(-count // batch))
    times = []
    for turn in range(turns):
        waveform = take(clips, batch, turn)
        started = time.perf_counter()
        scorer.score(waveform)
        times.append(time.perf_counter() - started)
    return batch / Series.of(times).median


def decode_rate(bundle: Bundle, sources: Sequence[Source], workers: int, batch: int, repeats: int) -> float:
    """Files a second of the decode stage alone, its processes started before, by the median pass."""
    raw = []
    for _ in range(repeats):
        with Settings(batch_size=batch, workers=workers).open_pool(Hearing(bundle.manifest.clip)) as pool:
            started = time.perf_counter()
            for _ in pool.decode(sources):
                pass
            raw.append(time.perf_counter() - started)
    return len(sources) / Series.of(raw).median


def measure_memory(
    sources: Sequence[Source], counts: Sequence[int], bundle: Path | None, backend: str
) -> Iterator[MemoryPoint]:
    """Memory against the number of files: `ser-batch run` on folders of so many links to the files given.

    Args:
        backend: "name:precision", run in the backend's default precision.

    Raises:
        InputError: a count below 1.
        EngineError: a run failed as a whole.
    """
    if min(counts, default=1) < 1:
        raise InputError("a number of files must be at least 1", got=min(counts))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            audio, out = Path(folder) / "audio", Path(folder) / "preds.parquet"
            audio.mkdir()
            for number, source in enumerate(itertools.islice(itertools.cycle(sources), count)):
                path = os.path.abspath(source.path)  # noqa: PTH100 — names need not be UTF-8
                os.symlink(path, audio / f"{number:08d}{Path(path).suffix}")  # noqa: PTH211
            command = [
                *SER_BATCH,
                "run",
                str(audio),
                "--out",
                str(out),
                "--quiet",
                "--backend",
                backend.partition(":")[0],
            ]
            done = run_process([*command, *(["--bundle", str(bundle)] if bundle else [])], allowed=(0, SOME_FAILED))
            yield MemoryPoint(count, done.seconds, done.peak_rss)
