"""Two loads other than the closed loop: clips that arrive at a fixed rate, and all clips at once.

At a fixed rate a clip's latency is counted from its arrival, waiting included, whatever the server was doing then:
a closed loop alone would hide that (coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.samples import Series
from ser_batch.errors import InputError

FIXED, OFFLINE = "fixed rate", "offline"
KEEPS_UP = 0.95
"""Share of the asked rate below which a server is called saturated."""


@dataclass(frozen=True)
class Arrivals:
    """What clips saw that arrived at a fixed rate; series of a value a clip, in seconds."""

    rate: float
    """Clips a second that arrived."""
    achieved: float
    """Clips a second that were served."""
    queueing: Series
    """From arrival until its batch began."""
    latency: Series
    """From arrival until its batch was done."""
    service: Series
    """Of each batch."""

    @property
    def saturated(self) -> bool:
        """Whether the server fell behind, so that the delays would have grown for ever."""
        return self.achieved < KEEPS_UP * self.rate


def fixed_rate(
    serve: Callable[[int], object],
    rate: float,
    clips: int,
    *,
    batch: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Arrivals:
    """Send `clips` clips, one every 1 / rate seconds; those waiting are served together, at most `batch` at a time.

    Args:
        serve: scores that many waiting clips.

    Raises:
        InputError: a rate that is not positive, or no clips.
    """
    if not rate > 0 or clips < 1 or batch < 1:
        raise InputError("a load needs a positive rate, clips and a batch size", got=(rate, clips, batch))
    queueing: list[float] = []
    latency: list[float] = []
    service: list[float] = []
    began = clock()
    while (served := len(latency)) < clips:
        if (early := served / rate - (clock() - began)) > 0:
            sleep(early)
        # A clock may wake a little early: the clip waited for has arrived by definition.
        started = max(clock() - began, served / rate)
        count = served + 1
        while count < clips and count - served < batch and count / rate <= started:
            count += 1
        serve(count - served)
        ended = clock() - began
        queueing += [started - i / rate for i in range(served, count)]
        latency += [ended - i / rate for i in range(served, count)]
        service.append(ended - started)
    # Counted over the time the last clip arrived and was served in: n intervals for n clips.
    achieved = clips / max(clock() - began, clips / rate)
    return Arrivals(rate, achieved, Series.of(queueing), Series.of(latency), Series.of(service))


def offline(
    serve: Callable[[int], object], clips: int, batch: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds to score `clips` clips that are all there, `batch` at a time."""
    if clips < 1 or batch < 1:
        raise InputError("an offline load needs clips and a batch size", got=(clips, batch))
    began = clock()
    for start in range(0, clips, batch):
        serve(min(batch, clips - start))
    return clock() - began
