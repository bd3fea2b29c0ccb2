"""One run, from its configuration to a finished output, through an executor that scores here or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import repeat

import pyarrow as pa

from ser_batch.bundle.trust import trust_of
from ser_batch.errors import InputError, OutputError
from ser_batch.output.destination import Output, check_output
from ser_batch.output.formats import check_rows
from ser_batch.output.parts import Parts, schema_before
from ser_batch.output.rows import Counts, digests
from ser_batch.output.schema import ADDED, NAMESPACE, VERSION, handed_through, schema
from ser_batch.pipeline.config import FIRST_CLIP, RunConfig
from ser_batch.pipeline.executor import Executor, Scoring
from ser_batch.pipeline.local import LocalExecutor
from ser_batch.pipeline.progress import Listener, Progress
from ser_batch.pipeline.summary import RunSummary, summarise
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, current_version, with_versions
from ser_batch.recordings.table import Recordings
from ser_batch.verification.auto import AUTO

ENOUGH = 100
"""Recordings after which a share of failures means something; before the end of the run, that is."""
Watch = Callable[[int], AbstractContextManager[Listener | None]]
"""Given the number of recordings, who is told of the run's progress."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    summary: RunSummary
    failed_paths: dict[str, str] = field(default_factory=dict)
    """Name -> path, as the run was given it, of the recordings in the summary's errors."""


def run(config: RunConfig, executor: Executor | None = None, watch: Watch = lambda total: nullcontext()) -> RunResult:
    """Score each recording and write its rows, in order, to the output.

    A recording that cannot be read or scored is a row with `status` "error". Rows go out in parts first; the output
    appears, whole, at the end. An interrupted run leaves the rows it has for `resume`.

    Args:
        executor: None: this machine.

    Raises:
        SerError: anything that the user can cause: no recordings, an output that exists, a damaged bundle, a runtime
            that is missing, more failures than allowed. Rows made before are kept.
    """
    recordings = _recordings(config)
    output = Output.parse(config.out)
    check_output(output, overwrite=config.overwrite, resume=config.resume)
    if output.name is not None:
        check_rows(output.name, len(recordings))
    aggregate_to = None if config.aggregate is None else _aggregate_output(config, output)
    before = schema_before(output) if config.resume and not config.overwrite else None
    if before is not None and config.clip is None and "segments" not in before.names:
        # Version 0.1.0 scored one clip.
        config = replace(config, clip=FIRST_CLIP if config.window is None else None)
    asked, config = config, _on_the_runtime_of(before, config)
    if before is not None:
        recordings = _as_before(recordings, before)
    executor = executor or LocalExecutor()
    with executor.open(config, recordings) as scoring, watch(len(recordings)) as listener:
        trust = trust_of(scoring.bundle)
        counts = Counts(trust.narrow, confident_from=trust.confident.score if trust.confident else None)
        progress = Progress(len(recordings), counts, left_out=recordings.left_out, listener=listener)
        table = _table(config, recordings, scoring, before)
        _write_rows(config, recordings, output, table, scoring, progress, listener)
        reason = scoring.reason if config is asked else "the runtime of the output that is gone on with"
        model = f"{scoring.bundle.id} on {scoring.description} ({reason})"
        summary = summarise(progress, scoring.bundle.labels, model, os.fspath(config.out), trust)
    if aggregate_to is not None:
        from ser_batch.output.aggregate import aggregate

        labels, of_branches = scoring.bundle.labels, scoring.bundle.branch_labels
        aggregate(output.tables(), recordings.key, labels, aggregate_to.file, of_branches)
        aggregate_to.render()
    paths = recordings.paths_of(file for file, _ in summary.errors)
    return RunResult(summary, paths)


def score_to_table(config: RunConfig, executor: Executor) -> pa.Table:
    """The rows that a run would write, in memory: each recording scored, in order; `config.out` is not looked at.

    Raises:
        SerError: as `run`.
    """
    recordings = _recordings(config)
    with executor.open(config, recordings) as scoring:
        table = _table(config, recordings, scoring, None)
        with closing(scoring.score(iter(recordings), table, Progress(len(recordings)))) as scored:
            return pa.Table.from_batches([batch for batch, _, _ in scored], table)


def _recordings(config: RunConfig) -> Recordings:
    if isinstance(config.audio, Recordings):
        recordings = config.audio
    else:
        recordings = find_recordings(config.audio, config.shard, config.root)
    if not len(recordings):
        raise InputError("a run needs recordings", got="none")
    return recordings


def _table(config: RunConfig, recordings: Recordings, scoring: Scoring, before: pa.Schema | None) -> pa.Schema:
    """The columns of the output, which are those that it has if it is gone on with."""
    return schema(
        scoring.bundle,
        scoring.engine,
        scoring.segmentation,
        branch_columns=config.branch_columns,
        embeddings=config.embeddings,
        extra=None if recordings.extra is None else recordings.extra.schema,
        without=() if before is None else [name for name in ADDED if name not in before.names],
    )


def _write_rows(
    config: RunConfig,
    recordings: Recordings,
    output: Output,
    table: pa.Schema,
    scoring: Scoring,
    progress: Progress,
    listener: Listener | None,
) -> None:
    """Have rows made for the recordings that lack them, and finish the output.

    Whatever ends the run early, the rows made until then are kept.
    """
    parts = Parts(
        output,
        table,
        recordings.keys(),
        key=recordings.key,
        resume=config.resume and not config.overwrite,
        counts=progress.output,
    )
    try:
        todo = _unfinished(recordings, parts, progress, config.retry_errors)
        with closing(scoring.score(todo, table, progress)) as scored:
            for batch, files, complete in scored:
                with progress.stage("write"):
                    parts.append(batch, complete=complete)
                progress.count(batch, files)
                check_failures(progress, config)
                if listener is not None:
                    listener(progress)
        check_failures(progress, config, at_end=True)
        with progress.stage("write"):
            parts.finish()
    except BaseException:
        with suppress(OutputError):
            parts.flush()
        raise
    finally:
        parts.close()


def _on_the_runtime_of(before: pa.Schema | None, config: RunConfig) -> RunConfig:
    """The configuration with the runtime that made the output to go on with, where none is stated.

    What "auto" prefers may have changed since: another was installed or verified.
    """
    made = {} if before is None else (before.metadata or {})
    backend, precision = (made.get(f"{NAMESPACE}{key}".encode(), b"").decode() for key in ("backend", "precision"))
    if config.backend != AUTO or not backend or config.precision not in (None, precision):
        return config
    return replace(config, backend=backend, precision=precision)


def _as_before(recordings: Recordings, before: pa.Schema) -> Recordings:
    """The recordings with the columns to hand through as the output to go on with has them.

    Stretches are left out if it has none, as version 0.1.0 had none. What reads as another type now (7 for 7.5) is
    made to have the type of then, if it can be.
    """
    extra = recordings.extra
    if extra is None or VERSION[-1] not in before.names:
        return recordings
    handed = [before.field(name) for name in handed_through(before.names)]
    if "given_start" not in before.names:
        extra = extra.drop_columns([name for name in ("start", "end") if name in extra.column_names])
    if len(handed) == extra.num_columns:
        for index, field in enumerate(handed):
            with suppress(pa.ArrowException):
                extra = extra.set_column(index, extra.column_names[index], extra.column(index).cast(field.type))
    return recordings.with_extra(extra)


def _unfinished(recordings: Recordings, parts: Parts, progress: Progress, retry_errors: bool) -> Iterator[Recording]:
    """Recordings without rows, or whose rows are about another version of the file, another stretch, other columns.

    Those that were absent are tried again.
    """
    index, known = parts.index, 0
    if not len(index):
        yield from recordings
        progress.unlisted = 0
        return
    given = repeat(0) if recordings.extra is None else digests(recordings.extra)
    for recording, columns in zip(with_versions(recordings), given, strict=False):
        row = index.find(recording.key)
        known += row is not None
        again = row is None or row.version == UNKNOWN_VERSION or (retry_errors and row.failed)
        if again or (row and (row.given != columns or row.version != current_version(recording))):
            yield recording
        else:
            progress.reused += 1
    progress.unlisted = len(index) - known


def check_failures(progress: Progress, config: RunConfig, *, at_end: bool = False) -> None:
    """Raise InputError if more recordings have failed than may: the run is plainly misconfigured."""
    few = progress.files < ENOUGH
    # Of a few that a resumed run had left, a bad one says nothing; of all that the output holds, it may.
    among = progress.files + (progress.reused if few else 0)
    allowed = None
    if config.max_errors is not None and progress.failures > config.max_errors:
        allowed = f"no more than {config.max_errors} (--max-errors)"
    judged = progress.files > 0 and (at_end or not few)
    if config.fail_over is not None and judged and progress.failures > config.fail_over * among:
        allowed = f"no more than {config.fail_over:.0%} of them (--fail-over)"
    if allowed:
        raise InputError(
            f"{progress.failures} of {among} recordings failed",
            expected=allowed,
            remedy="Their rows say why and are kept: --resume --retry-errors goes on.",
        )


def _aggregate_output(config: RunConfig, output: Output) -> Output:
    """Where the rows per recording go, once it is clear that they can be written there."""
    out = Output.parse(config.aggregate or "")
    if str(out) == str(output) or out.keeps_parts:
        raise OutputError(f"{config.aggregate} cannot hold one row per recording", expected="a file of its own")
    check_output(out, overwrite=config.overwrite or config.resume)
    return out
