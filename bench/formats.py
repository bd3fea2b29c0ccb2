"""`bench formats`: the pipeline beside a plain loop over the same files, format by format, with the same engine."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.archive import decode_batch
from bench.backends import identity
from bench.throughput import FEW, decode_cpu, default_workers, run_pipeline
from bench.timing import Series, rotated, time_in_turns, warnings
from ser_batch.audio.ffmpeg import FfmpegSound
from ser_batch.audio.windows import segments_of
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.formats import HEAD, identify
from ser_batch.pipeline.summary import RunSummary
from ser_batch.recordings.recording import Recording

_log = logging.getLogger(__name__)


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
    decoder: str
    """What read the files in the pipeline: "libsndfile", "ffmpeg", or both."""
    decode_cpu_seconds: float
    """CPU time that decoding a file takes with it, by the median file."""
    ffmpeg_cpu_seconds: float
    """The same with FFmpeg, whichever is chosen."""
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
    decoders: frozenset[str]


def measure_formats(
    bundle: Bundle,
    engine: Engine,
    archives: Mapping[str, Sequence[Recording]],
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
            passes[name].append(one := _pass(archives[name], scorer, batch, workers, turn, clock))
            _log.info(f"{name}, round {turn + 1} of {repeats + 1}: {one.pipeline:.2f} s, plain loop {one.plain:.2f} s")
    return [
        _measured(scorer, name, recordings, passes[name][1:], workers=workers, batch=batch)
        for name, recordings in archives.items()
    ]


def plain_loop(recordings: Sequence[Recording], scorer: Scorer, out: Path, batch: int) -> None:
    """What a user would write without the pipeline: decode a batch, score it, and write one Parquet table at the end.

    Raises:
        AudioError: a recording cannot be read; a plain loop ends there.
    """
    rows = []
    for start in range(0, len(recordings), batch):
        group = recordings[start : start + batch]
        fused = scorer.score(decode_batch(group, scorer.bundle.manifest.clip)).fused
        for recording, scores in zip(group, fused.tolist(), strict=True):
            columns = {f"p_{label}": score for label, score in zip(scorer.labels, scores, strict=True)}
            best = int(np.argmax(scores))
            rows.append({"file": recording.name, "label": scorer.labels[best], "score": scores[best], **columns})
    pq.write_table(pa.Table.from_pylist(rows), out)


def differing(pipeline: Path, plain: Path) -> int:
    """Files that have a label in both tables, but not the same one."""
    one, other = (
        {row["file"]: row["label"] for row in pq.read_table(path, columns=["file", "label"]).to_pylist()}
        for path in (pipeline, plain)
    )
    return sum(label is not None and label != other[file] for file, label in one.items())


def ffmpeg_cpu(bundle: Bundle, recordings: Sequence[Recording]) -> float:
    """Seconds of CPU time that FFmpeg needs in this process to decode a file, by the median file."""
    segmentation, raw = Segmentation(bundle.manifest.clip), []
    for recording in recordings[:FEW]:
        started = time.process_time()
        with Path(recording.path).open("rb", buffering=0) as file:
            kind = identify(file.read(HEAD))
            with closing(FfmpegSound(cast(BinaryIO, file), kind)) as sound:
                for _ in segments_of(sound, segmentation):
                    pass
        raw.append(time.process_time() - started)
    return Series.of(raw).median


def _pass(
    recordings: Sequence[Recording], scorer: Scorer, batch: int, workers: int, turn: int, clock: Callable[[], float]
) -> _Pass:
    with tempfile.TemporaryDirectory() as folder:
        tables = {way: Path(folder) / f"{way}.parquet" for way in ("pipeline", "plain")}
        summaries: list[RunSummary] = []

        def pipeline() -> None:
            summaries.append(run_pipeline(recordings, scorer, tables["pipeline"], batch=batch, workers=workers))

        calls = {"pipeline": pipeline, "plain": partial(plain_loop, recordings, scorer, tables["plain"], batch)}
        seconds = time_in_turns(calls, turn, clock)
        read = pq.read_table(tables["pipeline"], columns=["decoder"])["decoder"].to_pylist()
        return _Pass(
            **seconds, summary=summaries[0], differing=differing(**tables), decoders=frozenset(filter(None, read))
        )


def _measured(
    scorer: Scorer, name: str, recordings: Sequence[Recording], passes: Sequence[_Pass], *, workers: int, batch: int
) -> FormatRate:
    summary = passes[-1].summary
    pipeline, plain = (Series.of([getattr(one, way) for one in passes]) for way in ("pipeline", "plain"))
    return FormatRate(
        **identity(scorer.bundle, scorer.engine),
        format=name,
        workers=workers,
        batch=batch,
        files=len(recordings),
        bytes_per_file=sum(Path(recording.path).stat().st_size for recording in recordings) / len(recordings),
        audio_hours=summary.audio_hours,
        decoder=" and ".join(sorted(passes[-1].decoders)),
        decode_cpu_seconds=decode_cpu(scorer.bundle, recordings),
        ffmpeg_cpu_seconds=ffmpeg_cpu(scorer.bundle, recordings),
        seconds=pipeline,
        plain_seconds=plain,
        files_per_second=len(recordings) / pipeline.median,
        audio_hours_per_second=summary.audio_hours / pipeline.median,
        plain_files_per_second=len(recordings) / plain.median,
        speedup=float(np.median([one.plain / one.pipeline for one in passes])),
        differing=max(one.differing for one in passes),
        unscored=summary.rows - summary.clips,
        warnings=[*warnings({"total": pipeline}), *(f"plain loop: {text}" for text in warnings({"total": plain}))],
    )
