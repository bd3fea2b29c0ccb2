"""`bench formats`: the pipeline beside a plain loop over the same files, format by format, with the same engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.archive import decode_batch
from bench.backends import identity
from bench.throughput import decode_cpu, default_workers, run_pipeline
from bench.timing import Series, rotated, time_in_turns, warnings
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.recordings.sources import Source
from ser_batch.run.pipeline import RunSummary


@dataclass(frozen=True)
class FormatRate:
    """One format of the recordings."""

    bundle: str
    backend: str
    precision: str
    device: str
    format: str
    workers: int
    """Decode processes of the pipeline; the plain loop has none."""
    batch: int
    files: int
    bytes_per_file: float
    """Mean."""
    audio_hours: float
    """Of the recordings' sound that the pipeline scored in one pass."""
    decode_cpu_seconds: float
    """CPU time that decoding a file takes, by the median file."""
    seconds: Series
    """Of a pass of the pipeline, from listing in hand to the finished Parquet file and its summary."""
    plain_seconds: Series
    """Of a pass of the plain loop, to its Parquet file."""
    files_per_second: float
    """Of the pipeline, by the median pass, like all rates here."""
    audio_hours_per_second: float
    plain_files_per_second: float
    speedup: float
    """Median over the rounds of (the plain loop's seconds / the pipeline's)."""
    differing: int
    """Files that got a label from both, but not the same one."""
    unscored: int
    """Files without a label from the pipeline, because they are silent; the plain loop scores them."""
    warnings: list[str]


@dataclass(frozen=True)
class _Pass:
    """The pipeline and the plain loop through one format, one after the other."""

    pipeline: float
    """Seconds."""
    plain: float
    summary: RunSummary
    differing: int


def measure_formats(
    bundle: Bundle,
    engine: Engine,
    archives: Mapping[str, Sequence[Source]],
    *,
    workers: int | None = None,
    batch: int = 16,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[FormatRate]:
    """Score every archive by the pipeline and by a plain loop, round by round; the first round is warm-up.

    Each round starts with another format, and with the other of pipeline and loop.

    Args:
        archives: name of the format → its recordings, the same ones in each.

    Raises:
        AudioError: a recording cannot be read.
    """
    scorer, workers = Scorer(bundle, engine), workers or default_workers()
    passes: dict[str, list[_Pass]] = {name: [] for name in archives}
    for turn in range(repeats + 1):
        for name in rotated(list(archives), turn):
            passes[name].append(_pass(archives[name], scorer, batch, workers, turn, clock))
    return [
        _measured(scorer, name, sources, passes[name][1:], workers=workers, batch=batch)
        for name, sources in archives.items()
    ]


def plain_loop(sources: Sequence[Source], scorer: Scorer, out: Path, batch: int) -> None:
    """What a user would write without the pipeline: decode a batch, score it, and write one Parquet table at the end.

    Raises:
        AudioError: a recording cannot be read; a plain loop ends there.
    """
    rows = []
    for start in range(0, len(sources), batch):
        group = sources[start : start + batch]
        fused = scorer.score(decode_batch(group, scorer.bundle.manifest.clip)).fused
        for source, scores in zip(group, fused.tolist(), strict=True):
            columns = {f"p_{label}": score for label, score in zip(scorer.labels, scores, strict=True)}
            best = int(np.argmax(scores))
            rows.append({"file": source.file, "label": scorer.labels[best], "score": scores[best], **columns})
    pq.write_table(pa.Table.from_pylist(rows), out)


def differing(pipeline: Path, plain: Path) -> int:
    """Files that have a label in both tables, but not the same one."""
    one, other = (
        {row["file"]: row["label"] for row in pq.read_table(path, columns=["file", "label"]).to_pylist()}
        for path in (pipeline, plain)
    )
    return sum(label is not None and label != other[file] for file, label in one.items())


def _pass(
    sources: Sequence[Source], scorer: Scorer, batch: int, workers: int, turn: int, clock: Callable[[], float]
) -> _Pass:
    with tempfile.TemporaryDirectory() as folder:
        tables = {way: Path(folder) / f"{way}.parquet" for way in ("pipeline", "plain")}
        summaries: list[RunSummary] = []

        def pipeline() -> None:
            summaries.append(run_pipeline(sources, scorer, tables["pipeline"], batch=batch, workers=workers))

        calls = {"pipeline": pipeline, "plain": partial(plain_loop, sources, scorer, tables["plain"], batch)}
        seconds = time_in_turns(calls, turn, clock)
        return _Pass(**seconds, summary=summaries[0], differing=differing(**tables))


def _measured(
    scorer: Scorer, name: str, sources: Sequence[Source], passes: Sequence[_Pass], *, workers: int, batch: int
) -> FormatRate:
    summary = passes[-1].summary
    pipeline, plain = (Series.of([getattr(one, way) for one in passes]) for way in ("pipeline", "plain"))
    return FormatRate(
        **identity(scorer.bundle, scorer.engine),
        format=name,
        workers=workers,
        batch=batch,
        files=len(sources),
        bytes_per_file=sum(Path(source.path).stat().st_size for source in sources) / len(sources),
        audio_hours=summary.audio_hours,
        decode_cpu_seconds=decode_cpu(scorer.bundle, sources),
        seconds=pipeline,
        plain_seconds=plain,
        files_per_second=len(sources) / pipeline.median,
        audio_hours_per_second=summary.audio_hours / pipeline.median,
        plain_files_per_second=len(sources) / plain.median,
        speedup=float(np.median([one.plain / one.pipeline for one in passes])),
        differing=max(one.differing for one in passes),
        unscored=summary.rows - summary.clips,
        warnings=[*warnings({"total": pipeline}), *(f"plain loop: {text}" for text in warnings({"total": plain}))],
    )
