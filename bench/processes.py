"""A command in a process of its own: how long it took and how much memory it held at most."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ser_batch.errors import EngineError

SER_BATCH = (sys.executable, "-m", "ser_batch")
"""The command line of this very environment, wherever its script was installed."""


@dataclass(frozen=True)
class Finished:
    """One process that ended well."""

    seconds: float
    """Wall time from its start until it was reaped."""
    peak_rss: int
    """Bytes."""
    output: str
    """What it wrote to stdout and stderr, in one."""


def run_process(command: Sequence[str], *, allowed: tuple[int, ...] = (0,)) -> Finished:
    """Run `command` to its end, its output kept out of the way.

    Raises:
        EngineError: it ended with a code that is not among `allowed`.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        # wait4 alone tells the memory of this child; getrusage would tell that of the largest ever.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    if process.returncode not in allowed:
        raise EngineError(f"`{' '.join(command)}` ended with {process.returncode}", got=text.rpartition("\n")[2])
    return Finished(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), text)
