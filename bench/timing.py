"""Timings: a series with its raw values and its warnings, and engines timed in turns on the same clips.

The figures of a series are those of trtexec and perf_analyzer, and so is the limit on the coefficient of variation.
Engines take turns so that whatever slows the machine down slows all of them alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ser_batch.clips import Waveform
from ser_batch.engines import Engine
from ser_batch.errors import EngineError, InputError

_log = logging.getLogger(__name__)
MAX_COV = 0.025
"""Standard deviation over mean beyond which a series is called unstable."""
TRANSFERS = ("host_to_device", "device_to_host")
FP32_TOLERANCE = 1e-3
"""|Δp| from the first engine beyond which a float32 engine computes something else, and is no peer."""
PAUSE = 0.02
"""Seconds between turns: the threads of a runtime spin for a while, and would take the next engine's cores."""


@dataclass(frozen=True)
class Series:
    """Repeated timings of one thing, in seconds."""

    n: int
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    sd: float
    """Of the sample (n − 1); 0 where there is one value."""
    cov: float
    """sd / mean."""
    raw: tuple[float, ...]
    """Every value, in the order it was taken."""

    @classmethod
    def of(cls, raw: Sequence[float]) -> Series:
        """Summarise `raw` seconds; percentiles interpolate linearly. InputError if there are none."""
        if not raw:
            raise InputError("there is nothing to summarise: no timing was taken")
        values = np.asarray(raw, dtype=np.float64)
        median, p90, p95, p99 = (float(q) for q in np.percentile(values, (50, 90, 95, 99)))
        mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return cls(
            n=len(values),
            min=float(values.min()),
            mean=mean,
            median=median,
            p90=p90,
            p95=p95,
            p99=p99,
            sd=sd,
            cov=sd / mean if mean else 0.0,
            raw=tuple(values.tolist()),
        )


def warnings(stages: Mapping[str, Series]) -> list[str]:
    """What to know before trusting `stages`: instability, and what limits the rate other than the computation.

    Args:
        stages: stage → series; `total` is judged for stability, `compute`, `enqueue` and the transfers for the rest.
    """
    found = []
    total = stages["total"]
    if total.n < 2:
        found.append("one timing only: no spread is known")
    elif total.cov > MAX_COV:
        found.append(f"unstable: coefficient of variation {total.cov:.1%}, above {MAX_COV:.1%}")
    compute = stages.get("compute")
    transfer = sum(stages[name].median for name in TRANSFERS if name in stages)
    if compute is not None and transfer > compute.median:
        found.append(f"transfer-bound: copies take {transfer / compute.median:.1f} times the computation")
    if compute is not None and "enqueue" in stages and stages["enqueue"].median >= 0.9 * compute.median:
        found.append("enqueue-bound: the device waits for the host to submit work")
    return found


def take(clips: Waveform, batch: int, turn: int) -> Waveform:
    """Batch number `turn` of `clips` (N, samples), which start again after the last: (batch, samples), contiguous."""
    return clips[np.arange(turn * batch, (turn + 1) * batch) % len(clips)]


@dataclass(frozen=True)
class Candidate:
    """One engine, as a series of turns measured it."""

    label: str
    """Engine and precision."""
    device: str
    target: str
    batch: int
    seconds: Series
    """Per batch."""
    clips_per_second: float
    speedup: float
    """Median over the turns of (the first engine's time / this one's)."""
    max_difference: float
    """Largest |Δp| from the first engine on these clips."""
    warmup: int
    warnings: list[str]


def interleave(
    engines: Mapping[str, Engine],
    target: str,
    clips: Waveform,
    batch: int,
    *,
    rounds: int = 20,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], object] = time.sleep,
) -> list[Candidate]:
    """Time `engines` (the first is the reference) on the same batches; each round starts with another one.

    Args:
        target: the branch whose probabilities are compared.

    Raises:
        InputError: no engine or no round.
        EngineError: a float32 engine gives other probabilities than the reference.
    """
    if not engines or rounds < 1 or batch < 1:
        raise InputError("a comparison needs engines, rounds and a batch", got=(len(engines), rounds, batch))
    differences = check_equal(engines, target, take(clips, batch, 0))
    for turn in range(warmup):
        for engine in engines.values():
            engine.run(take(clips, batch, turn))
    times = {label: np.empty(rounds) for label in engines}
    for turn in range(rounds):
        waveform = take(clips, batch, turn)
        calls = {label: partial(engine.run, waveform) for label, engine in engines.items()}
        for label, seconds in time_in_turns(calls, turn, clock, pause).items():
            times[label][turn] = seconds
        _log.info(f"{target}, batch {batch}: round {turn + 1} of {rounds}")
    speedups = {label: float(np.median(times[next(iter(engines))] / times[label])) for label in engines}
    series = {label: Series.of(times[label].tolist()) for label in engines}
    return [
        Candidate(
            label=label,
            device=engine.device,
            target=target,
            batch=batch,
            seconds=series[label],
            clips_per_second=batch / series[label].median,
            speedup=speedups[label],
            max_difference=differences[label],
            warmup=warmup,
            warnings=warnings({"total": series[label]}),
        )
        for label, engine in engines.items()
    ]


def check_equal(engines: Mapping[str, Engine], target: str, waveform: Waveform) -> dict[str, float]:
    """Engine → largest |Δp| of `target` from the first engine.

    Raises:
        EngineError: a float32 engine is beyond `FP32_TOLERANCE`, or one of any precision is not finite.
    """
    rows = {label: engine.run(waveform)[target] for label, engine in engines.items()}
    expected = rows[next(iter(engines))]
    differences = {label: float(np.abs(found - expected).max()) for label, found in rows.items()}
    for label, difference in differences.items():
        limit = FP32_TOLERANCE if engines[label].precision == "fp32" else 1.0
        if not difference <= limit:
            raise EngineError(
                f"{label} does not compute what the others do", got=f"max |Δp| {difference:.2g}", expected=f"{limit:g}"
            )
    return differences


def time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    turn: int,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], object] = time.sleep,
) -> dict[str, float]:
    """Seconds that each of `calls` takes in round number `turn`."""
    seconds = {}
    for label in rotated(list(calls), turn):
        pause(PAUSE)
        started = clock()
        calls[label]()
        seconds[label] = clock() - started
    return seconds


def rotated(labels: Sequence[str], turn: int) -> list[str]:
    """`labels` in the order of round number `turn`: each round starts with the next one."""
    first = turn % len(labels)
    return [*labels[first:], *labels[:first]]
