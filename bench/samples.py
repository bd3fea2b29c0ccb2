"""A series of timings with its raw values, and what is wrong with it.

The figures are those of trtexec and perf_analyzer, and so is the limit on the coefficient of variation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ser_batch.errors import InputError

MAX_COV = 0.025
"""Standard deviation over mean beyond which a series is called unstable."""
TRANSFERS = ("host_to_device", "device_to_host")


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
    """What to know before trusting `stages`: instability, and what binds other than the computation.

    Args:
        stages: stage -> series; `total` is judged for stability, `compute`, `enqueue` and the transfers for the rest.
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
