from __future__ import annotations

import numpy as np
import pytest

from ser_batch.pipeline.ray.tasks import CHUNK, LARGEST_TASK, Tasks, unpack
from ser_batch.recordings.recording import Recording


def sources(count: int) -> list[Recording]:
    return [Recording(f"/a/\udcff{n}.wav", f"\\xff{n}.wav", span=(0.0, 1.5), row=2 * n) for n in range(count)]


@pytest.mark.parametrize(("count", "actors"), [(0, 3), (1, 1), (CHUNK, 2), (1000, 2), (1000, 100)])
def test_every_recording_is_in_one_task_under_its_number(count: int, actors: int) -> None:
    given = sources(count)
    divided = Tasks(iter(given))
    tasks = divided.divided(actors, long=False)
    found = dict(pair for task in tasks for pair in unpack(task))
    assert [found[number] for number in range(count)] == given
    assert sum(len(list(unpack(task))) for task in tasks) == count == divided.count
    assert all(len(task) <= LARGEST_TASK for task in tasks)
    assert len(tasks) >= min(4 * actors, -(-count // CHUNK))


def test_a_task_of_long_recordings_is_one_chunk() -> None:
    assert {len(task) for task in Tasks(sources(5_000)).divided(1, long=True)} == {1}


def test_recordings_can_be_had_again_by_number() -> None:
    given = sources(100)
    tasks = Tasks(given)
    assert [tasks[number] for number in (0, 15, 16, 99)] == [given[number] for number in (0, 15, 16, 99)]
    assert tasks.rows(np.array([3, 3, 50])).tolist() == [6, 6, 100]
    assert [list(unpack(task)) for task in tasks.alone([7, 40])] == [[(7, given[7])], [(40, given[40])]]
