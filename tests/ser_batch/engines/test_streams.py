from __future__ import annotations

import threading

import numpy as np
import pytest

from ser_batch.bundle.fusion import Probabilities
from ser_batch.clips import Waveform
from ser_batch.engines.streams import MICRO_BATCH, Layout, Streams, layout
from ser_batch.errors import EngineError


@pytest.mark.parametrize(
    ("batch", "threads", "expected"),
    [
        (1, 2, Layout(1, 2)),
        (MICRO_BATCH, 2, Layout(1, 2)),
        (16, 1, Layout(1, 1)),
        (16, 2, Layout(2, 1)),
        (16, 64, Layout(8, 8)),
        (256, 64, Layout(64, 1)),
    ],
)
def test_streams_are_as_many_as_threads_and_micro_batches_allow(batch: int, threads: int, expected: Layout) -> None:
    assert layout(batch, threads) == expected


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_rows_keep_their_order_and_no_context_is_used_twice_at_once(count: int, total: int) -> None:
    contexts = [threading.Lock() for _ in range(count)]
    streams = Streams(contexts)

    def score(context: threading.Lock, clips: Waveform) -> dict[str, Probabilities]:
        assert context.acquire(blocking=False), "two micro-batches in one stream"
        try:
            assert count == 1 or len(clips) <= MICRO_BATCH
            return {"branch": clips * 2}
        finally:
            context.release()

    waveform = np.arange(total * 3, dtype=np.float32).reshape(total, 3)
    found = streams.run(score, waveform)
    streams.close()
    np.testing.assert_array_equal(found["branch"], waveform * 2)


def test_a_small_batch_uses_every_stream() -> None:
    # Both streams must be inside at once, or the barrier breaks.
    barrier = threading.Barrier(2)

    def score(_: int, clips: Waveform) -> dict[str, Probabilities]:
        barrier.wait(timeout=10)
        return {"branch": clips}

    streams = Streams([0, 1])
    assert streams.run(score, np.zeros((2, 3), np.float32))["branch"].shape == (2, 3)
    streams.close()


def test_what_a_stream_raises_is_raised_and_the_streams_go_on() -> None:
    streams = Streams([0, 1])

    def score(_: int, clips: Waveform) -> dict[str, Probabilities]:
        if 5 in clips:
            raise EngineError("clip 5 is refused")
        return {"branch": clips}

    with pytest.raises(EngineError, match="clip 5"):
        streams.run(score, np.arange(8, dtype=np.float32)[:, None])
    for _ in range(4):
        assert streams.run(score, np.zeros((4, 1), np.float32))["branch"].shape == (4, 1)
    streams.close()
