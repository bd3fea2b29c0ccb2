"""The other loads as measurements: fixed rate and offline, on the fused output or a branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.latency import Measurement, Plan, flops_by_target, measurement, opened, repeat, with_share
from bench.load import FIXED, OFFLINE, fixed_rate, offline
from bench.peak import Peak
from bench.samples import Series, warnings
from bench.targets import take
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines import Engine
from ser_batch.errors import InputError


def measure_fixed_rate(plan: Plan, rate: float, clips: int) -> Iterator[Measurement]:
    """Clips arriving at `rate` a second, `clips` of them, for each backend, target and largest batch.

    Stages: `total` is the latency from a clip's arrival, `queueing` its wait, `compute` a batch's service.
    """
    if not rate > 0:
        raise InputError("the fixed rate must be positive", got=rate, expected="clips a second")
    for engine, target, batch, serve in _servers(plan):
        found = fixed_rate(serve, rate, clips, batch=batch)
        stages = {"total": found.latency, "queueing": found.queueing, "compute": found.service}
        details = {"rate": rate, "achieved": found.achieved, "saturated": found.saturated}
        # How latencies spread under load is the result, no sign of a bad measurement.
        behind = [f"saturated: {found.achieved:.1f} of {rate:g} clips/s were served"] if found.saturated else []
        measured = measurement(plan, engine, target, batch, FIXED, stages, found.achieved)
        # A batch here is whatever waits, so no share of the peak follows from it.
        yield replace(measured, details=details, warnings=behind)


def measure_offline(plan: Plan, peaks: Sequence[Peak], clips: int) -> Iterator[Measurement]:
    """`clips` clips that are all there, scored as fast as can be, as often as the budget says."""
    flops = flops_by_target(plan.bundle)
    for engine, target, batch, serve in _servers(plan):
        raw: list[float] = []

        def once(_: int, serve: Callable[[int], object] = serve, batch: int = batch, raw: list[float] = raw) -> float:
            raw.append(offline(serve, clips, batch))
            return raw[-1]

        # The engine is warm already: `_servers` saw to it.
        repeat(once, replace(plan.budget, warmup=0), forget=raw.clear)
        whole = Series.of(raw)
        each = Series.of([seconds * batch / clips for seconds in raw])
        stages = {"total": each, "compute": each, "whole": whole}
        found = measurement(plan, engine, target, batch, OFFLINE, stages, clips / whole.median)
        found = replace(found, details={"clips": clips}, warnings=warnings(stages))
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
        return plan.bundle.fusion(rows) if target == FUSED else rows

    return serve
