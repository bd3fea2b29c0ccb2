"""`bench latency`: a closed loop, one batch after the other, for every backend, branch and batch size.

Each measurement has stages, each of them a series. `total` is the engine's run and the fusion; `compute`,
`host_to_device`, `device_to_host` and `enqueue` come from the engine's `timings()`, and without it `compute` is the
engine's run; `fusion` is the numpy product; `from_file`, which only "fused" has, is decode + cut + score with the
scorer's checks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from bench.archive import decode_batch, read_clips
from bench.backends import branch_view, check_batch, identity, open_backend, targets_of
from bench.peak import Peak, best, count_bundle
from bench.processes import peak_resident, reset_peak
from bench.timing import Series, take, warnings
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED, Fusion
from ser_batch.clips import Waveform
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import EngineError
from ser_batch.recordings.recording import Recording

_log = logging.getLogger(__name__)
Clock = Callable[[], float]
BATCH_SIZES = (1, 2, 4, 8, 16)
"""The default; on a GPU, ask for 1 … 512."""
CLOSED = "closed loop"


@runtime_checkable
class Timed(Protocol):
    """An engine that also reports where the time of its last `run` went."""

    def timings(self) -> Mapping[str, float]:
        """Seconds of any of host_to_device, enqueue, compute and device_to_host."""
        ...


@dataclass(frozen=True)
class Budget:
    """How often a call is timed: `warmup` times without counting, then `iterations`, fewer once `seconds` are over."""

    warmup: int = 3
    iterations: int = 50
    seconds: float = 10.0
    """Measured time after which no further call starts, once there are `least`."""
    least: int = 3


@dataclass(frozen=True)
class Measurement:
    """One target in one engine at one batch size."""

    bundle: str
    backend: str
    precision: str
    device: str
    target: str
    """A branch, or "fused"."""
    batch: int
    mode: str
    warmup: int
    stages: dict[str, Series]
    """Stage → seconds per batch."""
    clips_per_second: float
    """batch / median total."""
    real_time_factor: float
    """Seconds of audio scored per second."""
    flops_per_clip: int | None
    """Counted from the graphs; None where they cannot be."""
    peak_share: float | None
    """Operations per second over the measured peak of a matrix product in that precision; None without a peak."""
    peak_rss: int
    """Largest resident memory in bytes since before the engine was opened."""
    device_memory: int | None
    """Bytes, as the engine reports them; None where it does not."""
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """Facts that only some modes have."""


@dataclass(frozen=True)
class Plan:
    """What `measure` measures, on which clips."""

    bundle: Bundle
    backends: tuple[str, ...]
    targets: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    clips: Waveform
    recordings: list[Recording]
    """Which the clips were read from; none: they are the bundle's reference clips."""
    threads: int | None = None
    budget: Budget = field(default_factory=Budget)

    @property
    def source(self) -> str:
        """Where the clips are from, in words."""
        if self.recordings:
            return f"{len(self.clips)} clips of AUDIO"
        return f"no AUDIO given: the {len(self.clips)} reference clips of {self.bundle.id}, synthetic, no files decoded"


def make_plan(
    bundle: Bundle,
    recordings: Sequence[Recording],
    backends: tuple[str, ...],
    *,
    targets: tuple[str, ...] = (),
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
    threads: int | None = None,
    budget: Budget | None = None,
) -> Plan:
    """Check the request and read the clips; no engine runs yet.

    Args:
        recordings: none: the bundle's reference clips are timed.

    Raises:
        InputError: an unknown target, or no recording can be read.
    """
    wanted = targets or targets_of(bundle)
    for target in wanted:
        branch_view(bundle, target)
    readable: list[Recording] = []
    if recordings:
        clips, readable = read_clips(recordings, bundle.manifest.clip, limit=max(batch_sizes))
    else:
        clips = bundle.reference().waveform
    return Plan(bundle, backends, wanted, batch_sizes, clips, readable, threads, budget or Budget())


def measure(plan: Plan, peaks: Sequence[Peak]) -> Iterator[Measurement]:
    """One measurement after the other, batch sizes innermost, each with an engine opened for its batch size."""
    flops = flops_by_target(plan.bundle)
    for number, (engine, target, batch) in enumerate(opened(plan), 1):
        found = with_share(measure_engine(engine, plan, target, batch), flops.get(target), peaks)
        told(plan, number, found)
        yield found


def told(plan: Plan, number: int, found: Measurement) -> None:
    """Log the measurement with that number of those of its mode in the plan."""
    of = len(plan.backends) * len(plan.targets) * len(plan.batch_sizes)
    what = f"{found.target}, {found.backend} {found.precision}, batch {found.batch}"
    _log.info(f"{found.mode} {number} of {of}: {what}: {1000 * found.stages['total'].median:.3g} ms")


def opened(plan: Plan) -> Iterator[tuple[Engine, str, int]]:
    """Every engine of a plan with its target and batch size, closed when the next is asked for."""
    for backend in plan.backends:
        for target in plan.targets:
            for batch in plan.batch_sizes:
                reset_peak()
                engine = open_backend(branch_view(plan.bundle, target), backend, plan.threads, batch)
                try:
                    check_batch(engine, plan.batch_sizes)
                    yield engine, target, batch
                finally:
                    engine.close()


def measure_engine(engine: Engine, plan: Plan, target: str, batch: int) -> Measurement:
    """Time one open engine; the share of the peak is left for `with_share`."""
    fusion = plan.bundle.fusion if target == FUSED else None
    stages = closed_loop(engine, fusion, plan.clips, batch, plan.budget)
    if target == FUSED and plan.recordings:
        stages["from_file"] = _from_files(Scorer(plan.bundle, engine), plan.recordings, batch, plan.budget)
    found = measurement(plan, engine, target, batch, CLOSED, stages, batch / stages["total"].median)
    return replace(found, warnings=warnings(stages))


def measurement(
    plan: Plan, engine: Engine, target: str, batch: int, mode: str, stages: dict[str, Series], rate: float
) -> Measurement:
    """A measurement of `rate` clips per second, still without operations, details and warnings."""
    return Measurement(
        **identity(plan.bundle, engine),
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
    )


def closed_loop(
    engine: Engine, fusion: Fusion | None, clips: Waveform, batch: int, budget: Budget, clock: Clock = time.perf_counter
) -> dict[str, Series]:
    """Stage → series of `engine`, and of `fusion` if given, on batches taken in turn from `clips` (N, samples)."""
    found: dict[str, list[float]] = {}

    def once(turn: int) -> float:
        waveform = take(clips, batch, turn)
        started = clock()
        rows = engine.run(waveform)
        scored = clock()
        if fusion is not None:
            fusion(rows)
        ended = clock()
        stages = dict(engine.timings()) if isinstance(engine, Timed) else {}
        stages.setdefault("compute", scored - started)
        if fusion is not None:
            stages["fusion"] = ended - scored
        for name, seconds in {"total": ended - started, **stages}.items():
            found.setdefault(name, []).append(seconds)
        return ended - started

    repeat(once, budget, forget=found.clear)
    return {name: Series.of(raw) for name, raw in found.items()}


def repeat(once: Callable[[int], float], budget: Budget, forget: Callable[[], None]) -> None:
    """Call `once(turn)`, which returns its seconds, as often as `budget` allows; `forget` drops the warm-up."""
    for turn in range(budget.warmup):
        once(turn)
    forget()
    spent = 0.0
    for turn in range(budget.iterations):
        if spent >= budget.seconds and turn >= budget.least:
            break
        spent += once(turn)


def _from_files(scorer: Scorer, recordings: Sequence[Recording], batch: int, budget: Budget) -> Series:
    raw: list[float] = []
    rule = scorer.bundle.manifest.clip

    def once(turn: int) -> float:
        chosen = [recordings[i % len(recordings)] for i in range(turn * batch, (turn + 1) * batch)]
        started = time.perf_counter()
        scorer.score(decode_batch(chosen, rule))
        raw.append(time.perf_counter() - started)
        return raw[-1]

    repeat(once, budget, forget=raw.clear)
    return Series.of(raw)


def flops_by_target(bundle: Bundle) -> dict[str, int]:
    """Target → operations per clip; empty where onnx is missing or a graph cannot be counted."""
    try:
        counts = {name: count.total for name, count in count_bundle(bundle).items()}
    except EngineError:
        return {}
    return {**counts, FUSED: sum(counts.values())}


def with_share(found: Measurement, flops: int | None, peaks: Sequence[Peak]) -> Measurement:
    """`found` with its operations per clip and its share of the peak in its precision."""
    peak = best(peaks, found.precision, found.device)
    compute = found.stages["compute"].median
    share = flops * found.batch / compute / peak.flops if flops and peak else None
    return replace(found, flops_per_clip=flops, peak_share=share)


def device_memory(engine: Engine) -> int | None:
    """Bytes held on the device at most; None from an engine that does not report them."""
    report: Callable[[], int] | None = getattr(engine, "device_memory", None)
    return None if report is None else int(report())
