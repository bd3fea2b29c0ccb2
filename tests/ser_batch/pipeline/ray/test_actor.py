"""The actor and what becomes of its results, in this process: no cluster, and no ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ser_batch.decode.process
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import EngineError
from ser_batch.output.rows import Counts
from ser_batch.output.schema import schema
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.ray.actor import TRIES, Plan, TaskScorer, probe
from ser_batch.pipeline.ray.tasks import LOST, NUMBER, STOPPED, Results, Tasks, spent
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from support.recordings import sources, write
from support.runs import score


def plan_of(bundle: Bundle, **changes: Any) -> Plan:
    opened = probe(bundle.root, "onnxruntime", None, 1)
    segmentation = changes.pop("segmentation", Segmentation(bundle.manifest.clip))
    plan = Plan(
        folder=Path.cwd(),
        bundle=bundle.root,
        sha256=bundle.sha256,
        opened=opened,
        threads=1,
        segmentation=segmentation,
        config=RunConfig((), "", batch_size=4, workers=1),
        table=schema(bundle, opened, segmentation),
        content=lambda _: None,
    )
    return replace(plan, **changes)


def results_of(plan: Plan, listed: list[Recording]) -> tuple[Results, list[pa.Table]]:
    tasks = Tasks(listed)
    scorer = TaskScorer(plan)
    return Results(tasks, plan.table, None), [scorer(task) for task in tasks.divided(1, long=True)]


def test_an_actor_makes_embeddings_where_they_are_asked_for(tmp_path: Path, embedding_bundle: Bundle) -> None:
    sources(tmp_path / "audio", 3)
    write(tmp_path / "audio" / "long.wav", 8.0, rate=16_000)
    plan = plan_of(embedding_bundle)
    config = replace(plan.config, embeddings="float32")
    table = schema(embedding_bundle, plan.opened, plan.segmentation, embeddings="float32")
    results, found = results_of(replace(plan, config=config, table=table), list(find_recordings([tmp_path / "audio"])))
    taken = [results.take(each) for each in found]
    rows = [row for each in taken if each is not None for row in each.batch.column("embedding").to_pylist()]
    assert len(rows) == 4 and all(row is not None and len(row) == 8 for row in rows)
    assert any(rows[-1])


@pytest.mark.parametrize("window", [None, 0.1])
def test_the_rows_are_those_of_a_local_run(tmp_path: Path, toy_bundle: Bundle, window: float | None) -> None:
    for seconds in (8.0, 20.0):
        write(tmp_path / f"{seconds}.wav", seconds, rate=16_000)
    sources(tmp_path / "audio", 38)
    for seconds in (8.0, 20.0):
        (tmp_path / f"{seconds}.wav").rename(tmp_path / "audio" / f"0{seconds}.wav")
    listed = list(find_recordings([tmp_path / "audio"]))
    segmentation = RunConfig((), "", window=window).segmentation(toy_bundle.manifest.clip)
    plan = plan_of(toy_bundle, segmentation=segmentation)
    results, tables = results_of(plan, listed)
    kept = [scored for table in reversed(tables) if (scored := results.take(table))]
    assert len(tables) == 3
    assert results.missing().tolist() == []
    scorer = Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", 1))
    summary = score(listed, scorer, tmp_path / "o.parquet", window=window, batch_size=4, workers=1)
    found = pa.Table.from_batches([each.batch for each in reversed(kept)])
    whole = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.equals(whole.schema, check_metadata=True)
    assert found.drop_columns(["label", "status"]).equals(whole.drop_columns(["label", "status"]))
    assert [found[name].to_pylist() for name in ("label", "status")] == [
        whole[name].to_pylist() for name in ("label", "status")
    ]
    assert sum(each.files for each in kept) == 40
    counts = Counts()
    for each in kept:
        counts.add(each.batch)
    assert counts.statuses["error"] == summary.failures == 7
    assert counts.seconds == pytest.approx(summary.audio_hours * 3600)
    assert set(spent(tables[0])) == {"decode", "engine"}


def test_an_result_that_comes_twice_counts_once(tmp_path: Path, toy_bundle: Bundle) -> None:
    results, (table,) = results_of(plan_of(toy_bundle), sources(tmp_path / "audio", 7))
    first = results.take(table.filter(pa.array([number < 3 for number in table[NUMBER].to_pylist()])))
    rest = results.take(table)
    assert first is not None
    assert rest is not None
    assert (first.batch.num_rows, rest.batch.num_rows, rest.files) == (3, 4, 4)
    assert results.take(table) is None


def test_extra_columns_follow_their_recording(tmp_path: Path, toy_bundle: Bundle) -> None:
    listed = [replace(each, row=6 - number) for number, each in enumerate(sources(tmp_path / "audio", 7))]
    extra = pa.table({"speaker": [f"s{number}" for number in range(7)]})
    plan = plan_of(toy_bundle)
    _, (table,) = results_of(plan, listed)
    tasks = Tasks(listed)
    results = Results(tasks, plan.table.append(extra.schema.field(0)), extra)
    kept = results.take(table.slice(2, 3))
    assert kept is not None
    assert kept.batch.column("speaker").to_pylist() == ["s4", "s3", "s2"]


def test_a_recording_that_crashes_its_decoder_is_a_row_and_the_actor_lives_on(
    tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ser_batch.decode.process, "WORKER", "support.hostile_worker")
    audio = tmp_path / "audio"
    sources(audio, 20)
    (audio / "004.wav").rename(audio / "004-abort.wav")
    _, tables = results_of(plan_of(toy_bundle), list(find_recordings([audio])))
    statuses = {row["file"]: row["error"] for table in tables for row in table.select(["file", "error"]).to_pylist()}
    assert "decoder crashed (SIGABRT)" in statuses["004-abort.wav"]
    assert statuses["019.wav"] is None
    assert len(statuses) == 20


def test_a_task_that_was_begun_too_often_is_given_up(tmp_path: Path, toy_bundle: Bundle) -> None:
    listed = sources(tmp_path / "audio", 2)
    tasks = Tasks(listed)
    plan = plan_of(toy_bundle)
    results = Results(tasks, plan.table, None)
    result = TaskScorer(plan, lambda _: TRIES + 1)(tasks.divided(1, long=False)[0])
    assert result.column_names == [LOST]
    assert results.take(result) is None
    assert results.missing().tolist() == [0, 1]
    row = results.give_up(1, toy_bundle)
    assert row.batch.column("error").to_pylist() == ["every process that scored it was lost"]
    assert row.batch.column("source_size").to_pylist() == [(tmp_path / "audio" / "001.wav").stat().st_size]
    assert results.missing().tolist() == [0]


def test_an_actor_that_cannot_work_says_why(tmp_path: Path, toy_bundle: Bundle) -> None:
    results, (result,) = results_of(plan_of(toy_bundle, sha256="0" * 64), sources(tmp_path / "audio", 2))
    assert result.column_names == [STOPPED]
    with pytest.raises(EngineError, match="not the same bundle on every machine"):
        results.take(result)
