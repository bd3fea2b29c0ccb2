"""The actor and what becomes of its answers, in this process: no cluster, and no ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ser_batch.decode.process
from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import Bundle
from ser_batch.distributed.actor import LOST, NUMBER, STOPPED, TRIES, Plan, TaskScorer, probe
from ser_batch.distributed.answers import Answers, spent
from ser_batch.distributed.parcels import Parcels
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import EngineError
from ser_batch.output.predictions import schema
from ser_batch.recordings.sources import Source, find_audio
from ser_batch.run.pipeline import Settings, run
from support.recordings import sources


def plan_of(bundle: Bundle, **changes: Any) -> Plan:
    opened = probe(bundle.root, "onnxruntime", None, 1)
    hearing = changes.pop("hearing", Hearing(bundle.manifest.clip))
    plan = Plan(
        folder=Path.cwd(),
        bundle=bundle.root,
        sha256=bundle.sha256,
        opened=opened,
        threads=1,
        hearing=hearing,
        settings=Settings(batch_size=4, workers=1),
        table=schema(bundle, opened, hearing),
        content=lambda _: None,
    )
    return replace(plan, **changes)


def made(plan: Plan, listed: list[Source]) -> tuple[Answers, list[pa.Table]]:
    parcels = Parcels(listed)
    scorer = TaskScorer(plan)
    return Answers(parcels, plan.table, None), [scorer(task) for task in parcels.tasks(1, long=True)]


@pytest.mark.parametrize("window", [None, 0.1])
def test_the_rows_are_those_of_a_local_run(tmp_path: Path, toy_bundle: Bundle, window: float | None) -> None:
    listed = sources(tmp_path / "audio", 40)
    hearing = Hearing(toy_bundle.manifest.clip, window)
    plan = plan_of(toy_bundle, hearing=hearing)
    answers, tables = made(plan, listed)
    kept = [answers.take(table) for table in reversed(tables)]
    assert len(tables) == 3
    assert answers.missing().tolist() == []
    scorer = Scorer(toy_bundle, open_engine(toy_bundle, "onnxruntime", 1))
    summary = run(listed, scorer, tmp_path / "o.parquet", hearing=hearing, settings=Settings(batch_size=4, workers=1))
    found = pa.Table.from_batches([each.batch for each in reversed(kept) if each])
    whole = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.equals(whole.schema, check_metadata=True)
    assert found.drop_columns(["label", "status"]).equals(whole.drop_columns(["label", "status"]))
    assert [found[name].to_pylist() for name in ("label", "status")] == [
        whole[name].to_pylist() for name in ("label", "status")
    ]
    assert sum(each.files for each in kept if each) == 40
    assert sum(len(each.failures) for each in kept if each) == summary.failures == 8
    assert sum(each.heard for each in kept if each) == pytest.approx(summary.audio_hours * 3600)
    assert set(spent(tables[0])) == {"decode", "engine"}


def test_an_answer_that_comes_twice_counts_once(tmp_path: Path, toy_bundle: Bundle) -> None:
    answers, (table,) = made(plan_of(toy_bundle), sources(tmp_path / "audio", 7))
    first = answers.take(table.filter(pa.array([number < 3 for number in table[NUMBER].to_pylist()])))
    rest = answers.take(table)
    assert first is not None
    assert rest is not None
    assert (first.batch.num_rows, rest.batch.num_rows, rest.files) == (3, 4, 4)
    assert answers.take(table) is None


def test_carried_columns_follow_their_recording(tmp_path: Path, toy_bundle: Bundle) -> None:
    listed = [replace(each, row=6 - number) for number, each in enumerate(sources(tmp_path / "audio", 7))]
    carried = pa.table({"speaker": [f"s{number}" for number in range(7)]})
    plan = plan_of(toy_bundle)
    _, (table,) = made(plan, listed)
    parcels = Parcels(listed)
    answers = Answers(parcels, plan.table.append(carried.schema.field(0)), carried)
    kept = answers.take(table.slice(2, 3))
    assert kept is not None
    assert kept.batch.column("speaker").to_pylist() == ["s4", "s3", "s2"]


def test_a_recording_that_crashes_its_decoder_is_a_row_and_the_actor_lives_on(
    tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ser_batch.decode.process, "WORKER", "support.hostile_worker")
    audio = tmp_path / "audio"
    sources(audio, 20)
    (audio / "004.wav").rename(audio / "004-abort.wav")
    _, tables = made(plan_of(toy_bundle), list(find_audio([audio])))
    statuses = {row["file"]: row["error"] for table in tables for row in table.select(["file", "error"]).to_pylist()}
    assert "decoder crashed (SIGABRT)" in statuses["004-abort.wav"]
    assert statuses["019.wav"] is None
    assert len(statuses) == 20


def test_a_task_that_was_begun_too_often_is_given_up(tmp_path: Path, toy_bundle: Bundle) -> None:
    listed = sources(tmp_path / "audio", 2)
    parcels = Parcels(listed)
    plan = plan_of(toy_bundle)
    answers = Answers(parcels, plan.table, None)
    answer = TaskScorer(plan, lambda _: TRIES + 1)(parcels.tasks(1, long=False)[0])
    assert answer.column_names == [LOST]
    assert answers.take(answer) is None
    assert answers.missing().tolist() == [0, 1]
    row = answers.give_up(1, toy_bundle.labels, tuple(b.name for b in toy_bundle.manifest.branches))
    assert row.failures == [("001.wav", "every process that scored it was lost")]
    assert row.batch.column("source_size").to_pylist() == [(tmp_path / "audio" / "001.wav").stat().st_size]
    assert answers.missing().tolist() == [0]


def test_an_actor_that_cannot_work_says_why(tmp_path: Path, toy_bundle: Bundle) -> None:
    answers, (answer,) = made(plan_of(toy_bundle, sha256="0" * 64), sources(tmp_path / "audio", 2))
    assert answer.column_names == [STOPPED]
    with pytest.raises(EngineError, match="not the same bundle on every machine"):
        answers.take(answer)
