"""Several engines on the same clips, in turns, so that what slows the machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.samples import Series, warnings
from bench.targets import take
from ser_batch.clips import Waveform
from ser_batch.engines import Engine
from ser_batch.errors import EngineError, InputError

FP32_TOLERANCE = 1e-3
"""|Δp| from the first engine beyond which a float32 one computes something else, and is no peer."""
PAUSE = 0.02
"""Seconds between turns: a runtime's threads go on spinning for a while, and would take the next one's cores."""


@dataclass(frozen=True)
class Candidate:
    """What a series of turns found of one engine."""

    label: str
    """Engine and precision."""
    device: str
    target: str
    batch: int
    seconds: Series
    """A batch."""
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
        ways = {label: partial(engine.run, waveform) for label, engine in engines.items()}
        for label, seconds in in_turns(ways, turn, clock, pause).items():
            times[label][turn] = seconds
    reference = times[next(iter(engines))]
    found = []
    for label, engine in engines.items():
        series = Series.of(times[label].tolist())
        found.append(
            Candidate(
                label=label,
                device=engine.device,
                target=target,
                batch=batch,
                seconds=series,
                clips_per_second=batch / series.median,
                speedup=float(np.median(reference / times[label])),
                max_difference=differences[label],
                warmup=warmup,
                warnings=warnings({"total": series}),
            )
        )
    return found


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


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    turn: int,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], object] = time.sleep,
) -> dict[str, float]:
    """Seconds that each of `ways` takes in round number `turn`."""
    seconds = {}
    for label in rotated(list(ways), turn):
        pause(PAUSE)
        started = clock()
        ways[label]()
        seconds[label] = clock() - started
    return seconds


def rotated(labels: Sequence[str], turn: int) -> list[str]:
    """`labels` as they take their turns in round number `turn`: each round starts with the next one."""
    first = turn % len(labels)
    return [*labels[first:], *labels[:first]]
