"""What the clocks of CPUs and GPUs were, before and after a measurement: a processor that slows down shows.

What is not stated by the system is said to be so. A virtual machine's /proc/cpuinfo often holds the nominal clock,
whatever the real one is, so the source stands beside each reading.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CPUFREQ = Path("/sys/devices/system/cpu")
CPUINFO = Path("/proc/cpuinfo")
GPU_CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm")

Clocks = dict[str, Any]


def read_clocks(cpufreq: Path = CPUFREQ, cpuinfo: Path = CPUINFO) -> Clocks:
    """Now: `cpu_mhz` of each CPU that this process may use, its `cpu_source`, and `gpus` as nvidia-smi states them.

    `cpu_mhz` is None where neither file system states it.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for source, read in ((cpufreq, _from_cpufreq), (cpuinfo, _from_cpuinfo)):
        try:
            found = read(source)
            mhz = [round(found[cpu], 1) for cpu in usable]
        except (OSError, ValueError, KeyError):
            continue
        if mhz:
            return {"cpu_mhz": mhz, "cpu_source": str(source), "gpus": nvidia_smi(GPU_CLOCKS)}
    return {"cpu_mhz": None, "cpu_source": "not stated by this system", "gpus": nvidia_smi(GPU_CLOCKS)}


def clocks_line(environment: dict[str, Any]) -> str | None:
    """One phrase for pages; None for a result from before clocks were read."""
    readings = [environment[key] for key in ("clocks_at_start", "clocks_at_end") if key in environment]
    if not readings:
        return None
    cpu = ", then ".join(_span(reading["cpu_mhz"]) for reading in readings)
    gpu = [", then ".join(card) for card in zip(*([c["clocks.sm"] for c in r["gpus"]] for r in readings), strict=False)]
    return "; ".join([f"CPU clocks {cpu} ({readings[0]['cpu_source']})", *(f"GPU clock {card}" for card in gpu)])


def nvidia_smi(fields: tuple[str, ...]) -> list[dict[str, str]]:
    """`fields` of each NVIDIA GPU as nvidia-smi states them, units included; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in done.stdout.strip().splitlines())
    return [dict(zip(fields, row, strict=False)) for row in rows]


def _from_cpufreq(folder: Path) -> dict[int, float]:
    files = folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    return {int(file.parts[-3].removeprefix("cpu")): int(file.read_text()) / 1000 for file in files}


def _from_cpuinfo(file: Path) -> dict[int, float]:
    found, cpu = {}, -1
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "processor":
            cpu = int(value)
        elif key.strip() == "cpu MHz":
            found[cpu] = float(value)
    return found


def _span(mhz: list[float] | None) -> str:
    if mhz is None:
        return "unknown"
    low, high = f"{min(mhz):.0f}", f"{max(mhz):.0f}"
    return f"{low} MHz" if low == high else f"{low} to {high} MHz"
