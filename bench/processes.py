"""Commands in processes of their own, and what a process uses: wall time, CPU time, memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_batch.errors import EngineError
from ser_batch.pipeline.summary import peak_rss

SER_BATCH = (sys.executable, "-m", "ser_batch")
"""The command line of this very environment, wherever its script was installed."""
SOME_FAILED = 3
"""Exit code of `ser-batch run` where recordings, not the run, are bad."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
    """Run `command` to its end and capture its output.

    Raises:
        EngineError: it ended with a code that is not among `allowed`.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        # wait4 gives the memory of this child; getrusage would give that of the largest child so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    if process.returncode not in allowed:
        raise EngineError(f"`{' '.join(command)}` ended with {process.returncode}", got=text.rpartition("\n")[2])
    return Finished(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), text)


def run_archive(folder: Path, bundle: Path, backend: str, *flags: str) -> Finished:
    """`ser-batch run` on `folder`/audio into `folder`/preds.parquet, in a process of its own.

    Args:
        backend: "name" or "name:precision".
        flags: further options of `ser-batch run`.

    Raises:
        EngineError: the run failed as a whole.
    """
    name, _, precision = backend.partition(":")
    command = [*SER_BATCH, "run", str(folder / "audio"), "--out", str(folder / "preds.parquet")]
    command += ["--bundle", str(bundle), "--backend", name, *(["--precision", precision] if precision else [])]
    return run_process([*command, *flags], allowed=(0, SOME_FAILED))


def cpu_seconds() -> float:
    """CPU time of this process until now, and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def reset_peak() -> bool:
    """Start measuring this process's peak memory anew; False where the system cannot (Linux can: proc(5))."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_resident() -> int:
    """Largest resident memory, in bytes, since `reset_peak` or else since the process began."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return peak_rss()
    return int(line.split()[1]) * 1024
