"""The other loads as measurements: fixed rate and offline, on the fused output or a branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.backends import check_batch, open_backend
from bench.latency import Measurement, Plan, device_memory, flops_by_target, repeat, with_share
from bench.load import FIXED, OFFLINE, fixed_rate, offline
from bench.memory import peak_resident, reset_peak
from bench.peak import Peak
from bench.samples import Series, warnings
from bench.targets import FUSED, branch_view, take
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
        measurement = _measurement(plan, engine, target, batch, FIXED, stages, found.achieved, details)
        if found.saturated:
            behind = f"saturated: {found.achieved:.1f} of {rate:g} clips/s were served"
            measurement = replace(measurement, warnings=[*measurement.warnings, behind])
        # A batch here is whatever waits, so no share of the peak follows from it.
        yield measurement


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
        details = {"clips": clips}
        found = _measurement(plan, engine, target, batch, OFFLINE, stages, clips / whole.median, details)
        yield with_share(found, flops.get(target), peaks)


def _servers(plan: Plan) -> Iterator[tuple[Engine, str, int, Callable[[int], object]]]:
    """Each warm engine with a function that scores the next clips, fusion included."""
    for backend in plan.backends:
        for target in plan.targets:
            for batch in plan.batch_sizes:
                reset_peak()
                engine = open_backend(branch_view(plan.bundle, target), backend, plan.threads)
                try:
                    check_batch(engine, plan.batch_sizes)
                    serve = _server(engine, plan, target)
                    for _ in range(plan.budget.warmup):
                        serve(batch)
                    yield engine, target, batch, serve
                finally:
                    engine.close()


def _server(engine: Engine, plan: Plan, target: str) -> Callable[[int], object]:
    served = 0

    def serve(count: int) -> object:
        nonlocal served
        rows = engine.run(take(plan.clips, count, served))
        served += 1
        return plan.bundle.fusion(rows) if target == FUSED else rows

    return serve


def _measurement(
    plan: Plan,
    engine: Engine,
    target: str,
    batch: int,
    mode: str,
    stages: dict[str, Series],
    rate: float,
    details: dict[str, object],
) -> Measurement:
    return Measurement(
        bundle=plan.bundle.id,
        backend=engine.name,
        precision=engine.precision,
        device=engine.device,
        target=target,
        batch=batch,
        mode=mode,
        warmup=plan.budget.warmup,
        stages=stages,
        clips_per_second=rate,
        real_time_factor=rate * plan.bundle.manifest.clip.seconds,
        flops_per_clip=None,
        peak_share=None,
        peak_rss=peak_resident(),
        device_memory=device_memory(engine),
        # How latencies spread under load is the result, no sign of a bad measurement.
        warnings=warnings(stages) if mode == OFFLINE else [],
        details=details,
    )
