"""How much memory this process has held at most, since a moment of one's choosing (Linux: proc(5))."""

from __future__ import annotations

from pathlib import Path

from ser_batch.run.summary import peak_rss

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Start counting anew; False where the system cannot, and the peak stays that of the whole process."""
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
