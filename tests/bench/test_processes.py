from __future__ import annotations

import mmap
import sys

import pytest

from bench.processes import peak_resident, reset_peak, run_process
from ser_batch.errors import EngineError


def test_a_process_is_timed_and_its_failure_reported():
    done = run_process([sys.executable, "-c", "pass"])
    assert done.seconds > 0 and done.peak_rss > 1e6
    with pytest.raises(EngineError, match="ended with 1; got boom"):
        run_process([sys.executable, "-c", "raise SystemExit('boom')"])


def test_the_peak_of_memory_starts_anew():
    with mmap.mmap(-1, 200 * 2**20) as held:  # malloc keeps what it is given back, once a training has asked it to
        held.write(bytes(200 * 2**20))
        before = peak_resident()
    if not reset_peak():
        pytest.skip("this system does not reset the peak")
    assert peak_resident() < before - 100 * 2**20
