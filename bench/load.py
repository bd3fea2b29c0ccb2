"""`bench latency --rate` and `--offline`: clips that arrive at a fixed rate, and clips that are all there at once.

At a fixed rate a clip's latency counts from its arrival, waiting included, whatever the server was doing then: a
closed loop alone would hide that (coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.latency import Measurement, Plan, flops_by_target, measurement, opened, repeat, told, with_share
from bench.peak import Peak
from bench.timing import Series, take, warnings
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.engines import Engine
from ser_batch.errors import InputError

FIXED, OFFLINE = "fixed rate", "offline"
KEEPS_UP = 0.95
"""Share of the asked rate below which a server is called saturated."""


@dataclass(frozen=True)
class Arrivals:
    """Clips that arrived at a fixed rate; `queueing` and `latency` have one value per clip, in seconds."""

    rate: float
    """Clips per second that arrived."""
    achieved: float
    """Clips per second that were served."""
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


def measure_fixed_rate(plan: Plan, rate: float, clips: int) -> Iterator[Measurement]:
    """`clips` clips arriving at `rate` per second, for each backend, target and batch size.

    Stages: `total` is the latency from a clip's arrival, `queueing` its wait, `compute` a batch's service.
    """
    if not rate > 0:
        raise InputError("the fixed rate must be positive", got=rate, expected="clips per second")
    for number, (engine, target, batch, serve) in enumerate(_servers(plan), 1):
        found = fixed_rate(serve, rate, clips, batch=batch)
        stages = {"total": found.latency, "queueing": found.queueing, "compute": found.service}
        details = {"rate": rate, "achieved": found.achieved, "saturated": found.saturated}
        # Latencies that spread under load are the result, not a sign of a bad measurement.
        behind = [f"saturated: {found.achieved:.1f} of {rate:g} clips/s were served"] if found.saturated else []
        measured = measurement(plan, engine, target, batch, FIXED, stages, found.achieved)
        told(plan, number, measured)
        # A batch here is whatever waits, so no share of the peak follows from it.
        yield replace(measured, details=details, warnings=behind)


def measure_offline(plan: Plan, peaks: Sequence[Peak], clips: int) -> Iterator[Measurement]:
    """`clips` clips that are all there, scored as fast as can be, as often as the plan's budget allows."""
    flops = flops_by_target(plan.bundle)
    for number, (engine, target, batch, serve) in enumerate(_servers(plan), 1):
        raw: list[float] = []

        def once(_: int, serve: Callable[[int], object] = serve, batch: int = batch, raw: list[float] = raw) -> float:
            raw.append(offline(serve, clips, batch))
            return raw[-1]

        # `_servers` has warmed the engine up.
        repeat(once, replace(plan.budget, warmup=0), forget=raw.clear)
        whole = Series.of(raw)
        each = Series.of([seconds * batch / clips for seconds in raw])
        stages = {"total": each, "compute": each, "whole": whole}
        found = measurement(plan, engine, target, batch, OFFLINE, stages, clips / whole.median)
        found = replace(found, details={"clips": clips}, warnings=warnings(stages))
        told(plan, number, found)
        yield with_share(found, flops.get(target), peaks)


def _servers(plan: Plan) -> Iterator[tuple[Engine, str, int, Callable[[int], object]]]:
    """Each warm engine with a function that scores the next clips, fusion included."""
    for engine, target, batch in opened(plan):
        serve = _server(engine, plan, target)
        for _ in range(plan.budget.warmup):
            serve(batch)
        yield engine, target, batch, serve


def _server(engine: Engine, plan: Plan, target: str) -> Callable[[int], object]:
    served = 0

    def serve(count: int) -> object:
        nonlocal served
        rows = engine.run(take(plan.clips, count, served))
        served += 1
        embedding = rows.pop(EMBEDDING, None)
        return plan.bundle.fusion(rows, embedding) if target == FUSED else rows

    return serve
