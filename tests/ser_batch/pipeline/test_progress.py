from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError, OutputError
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.progress import JsonLines, Listener, Log, Progress
from ser_batch.pipeline.run import ENOUGH, check_failures, run
from ser_batch.recordings.recording import Recording, Segment
from support.recordings import write


def progress(**counts: float) -> Progress:
    return Progress(1_000, started=time.perf_counter() - 10, **counts)  # type: ignore[arg-type]


def test_what_is_left_is_reckoned_from_what_was_done() -> None:
    made = progress(reused=500, files=100, seconds_scored=3600.0)
    assert made.remaining == pytest.approx(40, rel=0.01)
    event = made.to_event()
    assert (event["files"], event["total"]) == (600, 1_000)
    assert (event["audio_hours"], event["audio_hours_left"]) == (1, 4)
    assert progress().to_event()["eta_seconds"] is None


def test_a_long_recording_counts_as_far_as_it_has_been_heard() -> None:
    told = []
    made = Progress(2, started=time.perf_counter() - 10)
    made.listener = lambda progress: told.append(progress.to_event())
    of_two_hours = Segment(
        Recording("a.wav", "a.wav"), (1, 1), "ok", last=False, start=1797.0, end=1800.0, duration=7200.0, is_window=True
    )
    made.latest_failures = [("b.wav", "is empty")]
    made.reach(of_two_hours)
    (event,) = told
    assert (event["files"], event["within"], event["audio_hours"], event["audio_hours_left"]) == (0, 0.25, 0.5, 3.5)
    assert event["eta_seconds"] == pytest.approx(70, rel=0.01)
    assert not made.latest_failures  # a log has had them
    # A part of it is measured against that part; rows of windows are told of by themselves.
    made.reach(of_two_hours._replace(recording=Recording("a.wav", "a.wav", span=(1200.0, 2400.0)), is_window=False))
    assert (made.within, len(told)) == (0.5, 1)
    made.reach(of_two_hours._replace(last=True))
    assert len(told) == 1


def test_the_bottleneck_is_the_stage_with_the_most_time() -> None:
    made = progress()
    made.spent.update(decode=1.0, engine=8.0, write=0.5)
    stage, share = made.bottleneck
    assert stage == "engine"
    assert share == pytest.approx(0.8, rel=0.01)
    with made.stage("write"):
        time.sleep(0.01)
    assert made.spent["write"] > 0.509


def test_json_lines_are_few_and_whole() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream)
    for _ in range(5):
        lines(progress(files=1))
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["progress"]


def test_a_log_is_added_to_and_keeps_its_lines(tmp_path: Path) -> None:
    for file in ("a.wav", "b\n\x1b.wav"):
        Log(tmp_path / "log")(progress(latest_failures=[(file, "is empty")]))  # type: ignore[arg-type]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["failed: a.wav: is empty", r"failed: b\n\x1b.wav: is empty"]
    with pytest.raises(OutputError):
        Log(tmp_path / "nowhere" / "log")


def test_the_bar_moves_within_a_recording(tmp_path: Path, toy_bundle: Bundle) -> None:
    write(tmp_path / "a.wav", 90.0, rate=16_000)
    seen: list[tuple[int, float]] = []

    @contextmanager
    def watch(total: int) -> Iterator[Listener]:
        yield lambda made: seen.append((made.files, made.within))

    run(RunConfig((tmp_path / "a.wav",), tmp_path / "o.parquet", toy_bundle.root, batch_size=4), watch=watch)
    *on_the_way, end = seen
    shares = [share for files, share in on_the_way if not files]
    assert len(shares) >= 5
    assert shares == sorted(set(shares))
    assert end == (1, 0.0)


def limits(**given: float) -> RunConfig:
    return RunConfig((), "o.parquet", **given)  # type: ignore[arg-type]


def test_too_many_failures_end_a_run() -> None:
    three = limits(max_errors=3)
    check_failures(progress(files=9, failures=3), three)
    with pytest.raises(InputError, match="--max-errors"):
        check_failures(progress(files=9, failures=4), three)
    half = limits(fail_over=0.5)
    check_failures(progress(files=ENOUGH - 1, failures=ENOUGH - 1), half)  # too early to tell
    check_failures(progress(files=ENOUGH, failures=ENOUGH // 2), half)
    for given, at_end in (
        (progress(files=ENOUGH, failures=ENOUGH // 2 + 1), False),
        (progress(files=2, failures=2), True),
    ):
        with pytest.raises(InputError, match="--fail-over"):
            check_failures(given, half, at_end=at_end)
    for wrong in ({"max_errors": -1}, {"fail_over": 1.5}):
        with pytest.raises(InputError):
            limits(**wrong)


def test_the_few_that_a_resumed_run_had_left_are_judged_among_all() -> None:
    tenth = limits(fail_over=0.1)
    check_failures(progress(files=3, failures=1, reused=97), tenth, at_end=True)
    with pytest.raises(InputError, match="11 of 100 recordings failed"):
        check_failures(progress(files=11, failures=11, reused=89), tenth, at_end=True)
    with pytest.raises(InputError, match=f"{ENOUGH} of {ENOUGH} recordings failed"):
        # A share that is gone, and many to go.
        check_failures(progress(files=ENOUGH, failures=ENOUGH, reused=10**6), tenth)
