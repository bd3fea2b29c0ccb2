from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

import ser_batch.recordings.recording
import ser_batch.storage.bucket
from ser_batch.clips import Segmentation
from ser_batch.decode.buffer import SharedBuffer
from ser_batch.decode.descriptors import send
from ser_batch.decode.messages import Request, Response, Setup
from ser_batch.decode.worker import serve
from ser_batch.errors import StoreError
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, with_versions
from ser_batch.storage.bucket import PATIENCE, Bucket
from support.failing_store import AWAY, Failing
from support.recordings import RULE, write

COUNT = 6


class Together(Failing):
    """A store in which nobody gets an object before `COUNT` of them have been asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.barrier = threading.Barrier(COUNT, timeout=20)

    def open_input_file(self, path: str) -> Any:
        if failure := self._plan(0, "open_input_file"):
            raise OSError(failure)
        self.barrier.wait()
        return self._files.open_input_file(path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Together:
    (tmp_path / "b").mkdir()
    together = Together(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), lambda *_: None)
    bucket = Bucket("s3", "b", together)  # type: ignore[arg-type]
    monkeypatch.setattr(ser_batch.storage.bucket, "open_bucket", lambda scheme, name: bucket)
    monkeypatch.setenv(PATIENCE, "0")
    return together


@pytest.fixture
def worker() -> Iterator[Connection]:
    """A decode process that is a thread of this one."""
    ours, theirs = Pipe()
    slots = SharedBuffer(COUNT + 1, RULE.samples)

    def serving() -> None:
        with pytest.raises(EOFError):
            serve(theirs)

    thread = threading.Thread(target=serving)
    thread.start()
    ours.send(Setup(Segmentation(RULE), COUNT + 1))
    send(ours, slots.descriptor, os.getpid())
    assert isinstance(ours.recv(), int)
    yield ours
    ours.close()
    thread.join(20)
    assert not thread.is_alive()


def ask(worker: Connection, names: list[str]) -> list[Response | StoreError]:
    for slot, name in enumerate(names):
        worker.send(Request(slot, Recording(name, name), False, 0, (slot,)))
    return [worker.recv() for _ in names if worker.poll(20)]


def test_objects_whose_requests_wait_are_fetched_together_and_answered_in_order(
    store: Together, worker: Connection, tmp_path: Path
) -> None:
    for number in range(COUNT):
        write(tmp_path / "b" / f"{number}.wav", 0.5 + number / 8)
    write(tmp_path / "local.wav", 0.25)
    names = [f"s3://b/{number}.wav" for number in range(COUNT)]
    answers = ask(worker, [*names[:3], str(tmp_path / "local.wav"), *names[3:]])
    found = [answer.segments[0] for answer in answers if isinstance(answer, Response)]
    expected = [0.5, 0.625, 0.75, 0.25, 0.875, 1.0, 1.125]
    assert [segment.end for segment in found] == expected
    assert all(segment.version[0] > 1000 for segment in found)


def test_a_store_that_is_away_is_said_in_place_of_an_answer(
    store: Together, worker: Connection, tmp_path: Path
) -> None:
    store._plan = lambda *_: AWAY
    (answer,) = ask(worker, ["s3://b/0.wav"])
    assert isinstance(answer, StoreError)
    assert "cannot be reached" in str(answer)
    write(tmp_path / "local.wav", 0.25)
    (answer,) = ask(worker, [str(tmp_path / "local.wav")])
    assert isinstance(answer, Response)


def test_versions_are_asked_for_in_order_and_of_objects_alone(
    store: Together, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ser_batch.recordings.recording, "WAITING", 3)
    for number in range(10):
        (tmp_path / "b" / str(number)).write_bytes(bytes(number))
    sources = [Recording(f"s3://b/{number}", str(number)) for number in range(12)]
    sources[4:4] = [Recording("local", "local"), Recording("s3://b/5", "known", version=(7, 7))]
    found = list(with_versions(sources))
    assert [recording.name for recording in found] == [recording.name for recording in sources]
    sizes = [recording.version and recording.version[0] for recording in found]
    assert sizes == [0, 1, 2, 3, None, 7, 4, 5, 6, 7, 8, 9, *[UNKNOWN_VERSION[0]] * 2]
    store._plan = lambda *_: AWAY
    with pytest.raises(StoreError, match="cannot be reached"):
        list(with_versions(sources))
