"""The fastest matrix product this machine does, measured in the same run as what is compared with it.

Measured in a process of its own, so that neither torch's memory nor its threads touch the benchmark: `measure_peaks`
starts `python -m bench.peak`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ser_batch.errors import EngineError

REPEATS = 5
SECONDS = 1.0
"""Spent on one library and precision, at most, after its first product."""


@dataclass(frozen=True)
class Peak:
    """Best rate of one square matrix product."""

    library: str
    precision: str
    device: str
    size: int
    """Rows and columns of the two matrices."""
    flops: float
    """Operations a second, a multiplication and an addition counting as two."""


def measure_peaks(device: str = "cpu", small: bool = False) -> list[Peak]:
    """Peaks of every precision at hand on `device` ("cpu" or "cuda"), measured in a child process.

    Args:
        small: matrices too small to show the machine's peak, for tests of the path.

    Raises:
        EngineError: the child failed.
    """
    command = [sys.executable, "-m", "bench.peak", device, *(["small"] if small else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise EngineError(f"the matrix product's peak cannot be measured on {device}", got=reason)
    return [Peak(**peak) for peak in json.loads(done.stdout.strip().rpartition("\n")[2])]


def best(peaks: Sequence[Peak], precision: str, device: str) -> Peak | None:
    """The fastest of `peaks` in that precision on that device; None if it was not measured."""
    fitting = [peak for peak in peaks if (peak.precision, peak.device) == (precision, device)]
    return max(fitting, key=lambda peak: peak.flops, default=None)


def best_rate(multiply: Callable[[], object], size: int) -> float:
    """Operations a second of the fastest of `REPEATS` calls, fewer where they take long; the first is warm-up."""
    multiply()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < SECONDS:
        started = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def _numpy_peak(size: int) -> Peak:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, size, size), dtype=np.float32)
    out = np.empty((size, size), dtype=np.float32)
    return Peak("numpy", "fp32", "cpu", size, best_rate(lambda: np.matmul(left, right, out=out), size))


def _main(device: str, small: bool) -> None:
    peaks = [_numpy_peak(128 if small else 2048)] if device == "cpu" else []
    if importlib.util.find_spec("torch") is not None:
        from bench.peers.torch_peak import torch_peaks

        peaks += torch_peaks(device, 128 if small else None)
    sys.stdout.write(json.dumps([asdict(peak) for peak in peaks]) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1], small="small" in sys.argv[2:])
