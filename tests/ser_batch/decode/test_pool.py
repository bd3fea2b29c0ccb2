from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ser_batch.decode.pool
import ser_batch.decode.process
import ser_batch.decode.worker
from ser_batch.audio.reader import read_clip
from ser_batch.audio.windows import read_segments
from ser_batch.clips import Segmentation
from ser_batch.decode.buffer import SharedBuffer
from ser_batch.decode.pool import DecodePool
from ser_batch.decode.process import DecodeProcess
from ser_batch.errors import EngineError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from support.encoded import encode
from support.recordings import RULE, sources, write

WHOLE = Segmentation(RULE)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.decode.process, "WORKER", "support.hostile_worker")


def statuses(listed: list[Recording], **options: object) -> list[tuple[str, str, str | None]]:
    given = {"workers": 2, "prefetch": 8, **options}
    with DecodePool(WHOLE, **given) as pool:  # type: ignore[arg-type]
        return [(row.recording.name, row.status, row.error) for row, _ in pool.decode(listed)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 3), (3, 100)])
def test_the_order_is_that_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, ahead: int
) -> None:
    monkeypatch.setattr(ser_batch.decode.pool, "QUEUE", 1)
    listed = sources(tmp_path, 12)
    with DecodePool(WHOLE, workers=workers, prefetch=ahead) as pool:
        for index, (row, waveform) in enumerate(pool.decode(listed)):
            assert row.recording == listed[index]
            assert (waveform is None) == (row.status == "error") == (index % 5 == 3)
            if waveform is not None:
                np.testing.assert_array_equal(waveform, read_clip(row.recording.path, RULE).waveform)
        assert index == 11
        assert pool.processes == min(workers, ahead)


def test_no_more_than_the_bound_is_asked_for_ahead(tmp_path: Path) -> None:
    listed = sources(tmp_path, 20)
    asked = []

    def watched() -> object:
        for recording in listed:
            asked.append(recording)
            yield recording

    with DecodePool(WHOLE, workers=2, prefetch=5) as pool:
        rows = pool.decode(watched())  # type: ignore[arg-type]
        for taken in range(1, 6):
            next(rows)
            assert len(asked) <= taken + 5
        rows.close()
    assert len(asked) < 20


def test_a_few_sources_are_left_to_one_process(tmp_path: Path) -> None:
    with DecodePool(WHOLE, workers=4, prefetch=100) as pool:
        assert len(list(pool.decode(sources(tmp_path, 6)))) == 6
        assert pool.processes == 1


def test_a_crash_costs_one_source(tmp_path: Path, hostile: None) -> None:
    for name in ("a", "b-abort", "c", "d-segfault", "e"):
        write(tmp_path / f"{name}.wav", 0.1)
    rows = statuses(list(find_recordings([tmp_path])))
    assert [status for _, status, _ in rows] == ["ok", "error", "ok", "error", "ok"]
    assert [rows[1][2], rows[3][2]] == ["decoder crashed (SIGABRT)", "decoder crashed (SIGSEGV)"]


def test_a_crash_that_does_not_come_again_costs_nothing(tmp_path: Path, hostile: None) -> None:
    listed = sources(tmp_path, 3)
    Path(listed[1].path + ".once").touch()
    assert [status for _, status, _ in statuses(listed)] == ["ok", "ok", "ok"]


def test_a_hang_costs_one_source_and_its_time(tmp_path: Path, hostile: None) -> None:
    for name in ("a", "b-hang", "c"):
        write(tmp_path / f"{name}.wav", 0.1)
    rows = statuses(list(find_recordings([tmp_path])), timeout=1.5)
    assert rows[1][1:] == ("error", "took longer than 1.5 s to decode")
    assert [status for _, status, _ in rows] == ["ok", "error", "ok"]


def test_the_time_spent_away_from_the_pool_is_nobodys_fault(tmp_path: Path) -> None:
    listed = sources(tmp_path, 3)
    with DecodePool(WHOLE, workers=1, prefetch=3, timeout=1.5) as pool:
        rows = pool.decode(listed)
        found = [next(rows)[0].status]
        time.sleep(2)
        found += [row.status for row, _ in rows]
    assert found == ["ok"] * 3


def test_long_recordings_are_streamed_beside_short_ones(tmp_path: Path) -> None:
    segmentation = Segmentation(RULE, 3, 1.5)
    for index, seconds in enumerate([0.2, 60, 0.3, 30, 0.4, *[0.1] * 10]):
        write(tmp_path / f"{index:02}.wav", seconds, rate=16_000)
    listed = list(find_recordings([tmp_path]))
    with DecodePool(segmentation, workers=2, prefetch=20) as pool:
        found: dict[str, list[float]] = {}
        for row, waveform in pool.decode(listed):
            assert row.start is not None
            assert waveform is not None
            found.setdefault(row.recording.name, []).append(row.start)
            if row.recording.name == "01.wav" and row.start == 45:
                expected = next(clip for clip in read_segments(row.recording.path, segmentation) if clip.start == 45)
                np.testing.assert_array_equal(waveform, expected.waveform)
    assert list(found) == [recording.name for recording in listed]
    assert found["01.wav"] == [1.5 * k for k in range(39)]
    assert found["03.wav"] == [1.5 * k for k in range(19)]


def test_a_stream_goes_on_where_a_dead_process_left_it(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", 90, rate=16_000)
    (recording,) = find_recordings([tmp_path])
    with DecodePool(Segmentation(RULE, 3), workers=1, prefetch=4) as pool:
        starts = []
        for row, _ in pool.decode([recording]):
            assert row.start is not None
            starts.append(row.start)
            if len(starts) == 12:
                os.kill(pool._processes[0]._process.pid, signal.SIGKILL)
    assert starts == [3.0 * k for k in range(30)]


def test_bytes_that_are_no_file_are_read(tmp_path: Path, hostile: None) -> None:
    contents = {f"{k}.wav": write(tmp_path / "x.wav", 0.1 + 0.1 * k).read_bytes() for k in range(4)}
    contents["bad.wav"] = b"no audio"
    listed = [Recording("/nowhere/" + name, name) for name in contents]
    with DecodePool(WHOLE, workers=2, prefetch=4) as pool:
        rows = [row for row, _ in pool.decode(listed, lambda recording: contents[recording.name])]
    assert [row.duration for row in rows] == pytest.approx([0.1, 0.2, 0.3, 0.4, None])


def test_processes_that_cannot_start_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.decode.process, "WORKER", "no_such_module")
    with pytest.raises(EngineError, match="cannot start"):
        statuses(sources(tmp_path, 2))


def test_a_process_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    """An index that claims 2^28 entries, of which none takes a byte in the file: FFmpeg would make them all."""
    content = encode(tmp_path / "x.mp4", "mp4", 1.0, movflags="frag_every_frame+empty_moov").read_bytes()
    run = content.rindex(b"trun")
    lying = content[: run + 4] + bytes(4) + (1 << 28).to_bytes(4, "big") + content[run + 12 :]
    (tmp_path / "x.mp4").write_bytes(lying)
    write(tmp_path / "y.wav", 0.1)
    listed = list(find_recordings([tmp_path]))
    with DecodePool(WHOLE, workers=1, prefetch=2) as pool:
        rows = [row for row, _ in pool.decode(listed)]
        limit, _ = resource.prlimit(pool._processes[0]._process.pid, resource.RLIMIT_DATA)
    assert limit == ser_batch.decode.worker.MEMORY
    assert [row.status for row in rows][1] == "ok"


def test_a_pool_begins_with_a_process_that_was_started_before(tmp_path: Path) -> None:
    first = DecodeProcess()
    with DecodePool(WHOLE, workers=1, prefetch=3, first=first) as pool:
        assert [segment.status for segment, _ in pool.decode(sources(tmp_path, 3))] == ["ok"] * 3
        assert first.started
        assert pool.processes == 1
    assert first.end() == "exit 0"
    first.close()


def test_a_process_that_nobody_needed_ends() -> None:
    process = DecodeProcess()
    process.close()
    assert process.end() in ("SIGKILL", "exit 0")  # whichever comes first


def test_a_process_is_started_without_what_it_imports() -> None:
    code = "import sys, ser_batch.decode.process; print({'numpy', 'soundfile'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_slots_are_one_memory_seen_twice() -> None:
    ours = SharedBuffer(3, 10)
    theirs = SharedBuffer(3, 10, os.dup(ours.descriptor))
    theirs[1][:] = 7
    assert ours[1].tolist() == [7.0] * 10
    assert not ours[0].any()
    assert not ours[2].any()


def test_no_time_limit_is_a_time_limit_too(tmp_path: Path) -> None:
    listed = sources(tmp_path, 2)
    for timeout in (math.inf, 1e9):
        assert [status for _, status, _ in statuses(listed, timeout=timeout)] == ["ok", "ok"]


def test_several_long_recordings_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.decode.pool, "QUEUE", 1)
    for index in range(4):
        write(tmp_path / f"{index}.wav", 60.0, rate=16_000)
    listed = list(find_recordings([tmp_path]))
    with DecodePool(Segmentation(RULE, whole=True), workers=3, prefetch=60) as pool:
        rows = pool.decode(listed)
        next(rows)
        while sum(job.received > 1 for job in pool._jobs) < 3:
            pool._wait()
            pool._go_on()
        found = [row for row, _ in rows]
    assert len(found) == 79
    assert [row.recording for row in found if row.last] == listed
