from __future__ import annotations

import pytest

from bench.load import fixed_rate, offline
from ser_batch.errors import InputError


class Clock:
    """Time that passes only when someone sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


def run(rate: float, clips: int, service: float, batch: int = 1):
    clock, batches = Clock(), []

    def serve(count: int) -> None:
        batches.append(count)
        clock.pass_time(service)

    return fixed_rate(serve, rate, clips, batch=batch, clock=clock, sleep=clock.pass_time), batches


def test_a_fast_server_makes_no_one_wait():
    found, batches = run(rate=10, clips=20, service=0.05)
    assert batches == [1] * 20
    assert found.queueing.raw == pytest.approx([0.0] * 20) and found.latency.raw == pytest.approx([0.05] * 20)
    assert found.achieved == pytest.approx(10) and not found.saturated


def test_a_slow_server_lets_the_queue_grow():
    # A clip every 0.1 s, each served in 0.15 s: clip i waits 0.05 i.
    found, _ = run(rate=10, clips=20, service=0.15)
    assert found.queueing.raw == pytest.approx([0.05 * i for i in range(20)])
    assert found.latency.raw == pytest.approx([0.05 * i + 0.15 for i in range(20)])
    assert found.service.raw == pytest.approx([0.15] * 20)
    assert found.achieved == pytest.approx(20 / (20 * 0.15)) and found.saturated


def test_clips_that_wait_are_served_together():
    # 0.25 s a batch: the first clip alone; clips 1 and 2 wait at 0.25, clips 3 to 5 at 0.5, 6 and 7 at 0.75.
    found, batches = run(rate=10, clips=8, service=0.25, batch=4)
    assert batches == [1, 2, 3, 2]
    assert found.queueing.raw == pytest.approx([0, 0.15, 0.05, 0.2, 0.1, 0.0, 0.15, 0.05])
    assert found.queueing.n == found.latency.n == 8 and found.service.n == 4


def test_a_batch_holds_no_more_than_it_may():
    _, batches = run(rate=1000, clips=50, service=1.0, batch=4)
    assert max(batches) == 4 and sum(batches) == 50


def test_offline_scores_every_clip_once():
    clock, batches = Clock(), []

    def serve(count: int) -> None:
        batches.append(count)
        clock.pass_time(count)

    assert offline(serve, 10, 4, clock=clock) == 10
    assert batches == [4, 4, 2]


@pytest.mark.parametrize(
    ("rate", "clips", "batch"), [(0, 1, 1), (-1, 1, 1), (float("nan"), 1, 1), (1, 0, 1), (1, 1, 0)]
)
def test_no_load_is_refused(rate, clips, batch):
    with pytest.raises(InputError):
        fixed_rate(lambda _: None, rate, clips, batch=batch)
    if rate == 1:
        with pytest.raises(InputError):
            offline(lambda _: None, clips, batch)
