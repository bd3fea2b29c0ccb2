"""The engine alone and the decoder alone, in wall time and in CPU time: what a pipeline of both can reach at best.

CPU time counts what is computed, wherever and whenever: it hardly changes when others use the machine, and where
decoders and engine share the cores, no pipeline is faster than the CPU time of both allows.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.samples import Series
from bench.targets import take
from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Waveform
from ser_batch.decode.source import decode
from ser_batch.engines.scorer import Scorer
from ser_batch.recordings.sources import Source
from ser_batch.run.pipeline import Settings

FEW = 64
"""Files decoded to know the CPU time of one."""


@dataclass(frozen=True)
class Bare:
    """The scorer alone, on clips in memory."""

    clips_per_second: float
    cpu_seconds: float
    """CPU time a clip, of all threads."""


def cpu_seconds() -> float:
    """CPU time of this process until now, and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def bare_rate(scorer: Scorer, clips: Waveform, batch: int, count: int) -> Bare:
    """`scorer` alone, over at least `count` clips after one batch of warm-up, by the median batch."""
    scorer.score(take(clips, batch, 0))
    turns = max(3, -(-count // batch))
    times = []
    used = cpu_seconds()
    for turn in range(turns):
        waveform = take(clips, batch, turn)
        started = time.perf_counter()
        scorer.score(waveform)
        times.append(time.perf_counter() - started)
    return Bare(batch / Series.of(times).median, (cpu_seconds() - used) / turns / batch)


def decode_rate(bundle: Bundle, sources: Sequence[Source], workers: int, batch: int, repeats: int) -> float:
    """Files a second of the decode stage alone, its processes started before, by the median pass."""
    raw = []
    for _ in range(repeats):
        with Settings(batch_size=batch, workers=workers).open_pool(Hearing(bundle.manifest.clip)) as pool:
            started = time.perf_counter()
            for _ in pool.decode(sources):
                pass
            raw.append(time.perf_counter() - started)
    return len(sources) / Series.of(raw).median


def decode_cpu(bundle: Bundle, sources: Sequence[Source]) -> float:
    """Seconds of CPU time that decoding a file takes, in this process and without its start, by the median file."""
    hearing = Hearing(bundle.manifest.clip)
    raw = []
    for source in sources[:FEW]:
        started = time.process_time()
        for _ in decode(source, hearing):
            pass
        raw.append(time.process_time() - started)
    return Series.of(raw).median
