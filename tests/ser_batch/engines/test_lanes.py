from __future__ import annotations

import threading

import numpy as np
import pytest

from ser_batch.bundle.fusion import Probabilities
from ser_batch.clips import Waveform
from ser_batch.engines.lanes import PIECE, Lanes, Layout, layout
from ser_batch.errors import EngineError


@pytest.mark.parametrize(
    ("batch", "threads", "expected"),
    [
        (1, 2, Layout(1, 2)),
        (PIECE, 2, Layout(1, 2)),
        (16, 1, Layout(1, 1)),
        (16, 2, Layout(2, 1)),
        (16, 64, Layout(8, 8)),
        (256, 64, Layout(64, 1)),
    ],
)
def test_lanes_are_as_many_as_threads_and_pieces_allow(batch: int, threads: int, expected: Layout) -> None:
    assert layout(batch, threads) == expected


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("clips", [1, 2, 3, 7])
def test_rows_keep_their_order_and_no_context_is_used_twice_at_once(count: int, clips: int) -> None:
    contexts = [threading.Lock() for _ in range(count)]
    lanes = Lanes(contexts)

    def score(context: threading.Lock, piece: Waveform) -> dict[str, Probabilities]:
        assert context.acquire(blocking=False), "two pieces in one lane"
        try:
            assert count == 1 or len(piece) <= PIECE
            return {"branch": piece * 2}
        finally:
            context.release()

    waveform = np.arange(clips * 3, dtype=np.float32).reshape(clips, 3)
    found = lanes.run(score, waveform)
    lanes.close()
    np.testing.assert_array_equal(found["branch"], waveform * 2)


def test_a_small_batch_uses_every_lane() -> None:
    # Both lanes must be inside at once, or the barrier breaks.
    barrier = threading.Barrier(2)

    def score(_: int, piece: Waveform) -> dict[str, Probabilities]:
        barrier.wait(timeout=10)
        return {"branch": piece}

    lanes = Lanes([0, 1])
    assert lanes.run(score, np.zeros((2, 3), np.float32))["branch"].shape == (2, 3)
    lanes.close()


def test_what_a_lane_raises_is_raised_and_the_lanes_go_on() -> None:
    lanes = Lanes([0, 1])

    def score(_: int, piece: Waveform) -> dict[str, Probabilities]:
        if 5 in piece:
            raise EngineError("clip 5 is refused")
        return {"branch": piece}

    with pytest.raises(EngineError, match="clip 5"):
        lanes.run(score, np.arange(8, dtype=np.float32)[:, None])
    for _ in range(4):
        assert lanes.run(score, np.zeros((4, 1), np.float32))["branch"].shape == (4, 1)
    lanes.close()
