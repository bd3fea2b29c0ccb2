"""What a figure was measured on: machine, versions, commit, command, load, and the clocks before and after.

A processor's name is not its kind: clouds give one name to several generations, which family and model tell apart. One
that slows down shows in its clocks. A virtual machine's /proc/cpuinfo often holds the nominal clock, whatever the real
one is, so each reading names its source, and a system without readings is reported as such.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ser_batch.machine import git_commit, package_version, processor, usable_cpus
from ser_batch.text import shareable_command

PACKAGES = (
    *("ser-batch", "numpy", "soundfile", "soxr", "pyarrow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
    *("tensorrt-rtx-cu13-libs", "torch", "transformers", "optimum-onnx", "onnx"),
)
ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
"""Instruction sets that decide how fast a matrix product is."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
CPU_KIND = {"vendor_id": "vendor", "cpu family": "family", "model": "model_number", "stepping": "stepping"}
"""Field of /proc/cpuinfo on x86 → its name in a result, where `model` is the processor's name."""
CPUFREQ = Path("/sys/devices/system/cpu")
CPUINFO = Path("/proc/cpuinfo")
GPU = ("name", "driver_version", "memory.total", "compute_cap", "clocks.sm", "clocks.max.sm")
GPU_CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm")


def describe() -> dict[str, Any]:
    """Everything as plain JSON types; call it first, so that the load average is that before the measurement."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "load_average_at_start": None if load is None else [round(value, 2) for value in load],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shareable_command([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "cpu": _cpu(),
        "memory_bytes": _memory(),
        "gpus": nvidia_smi(GPU),
        "clocks_at_start": read_clocks(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := package_version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": git_commit(),
    }


def with_clocks_at_end(environment: dict[str, Any]) -> dict[str, Any]:
    """`environment` with the clocks as they are now, after the measurement that `describe` was called before."""
    return {**environment, "clocks_at_end": read_clocks()} if "clocks_at_start" in environment else environment


def machine_line(environment: dict[str, Any]) -> str:
    """One line for pages: processor with its family and model where they are known, cores, instruction sets, GPU."""
    cpu, cards = environment["cpu"], environment["gpus"]
    kind = f" (family {cpu['family']}, model {cpu['model_number']})" if {"family", "model_number"} <= set(cpu) else ""
    parts = [f"{cpu['model']}{kind}, {cpu['cores_usable']} cores", " ".join(cpu["isa"]) or "no vector flags known"]
    return "; ".join([*parts, *(card["name"] for card in cards)])


def clocks_line(environment: dict[str, Any]) -> str | None:
    """One phrase for pages; None for a result from before clocks were read."""
    readings = [environment[key] for key in ("clocks_at_start", "clocks_at_end") if key in environment]
    if not readings:
        return None
    cpu = ", then ".join(_span(reading["cpu_mhz"]) for reading in readings)
    gpu = [", then ".join(card) for card in zip(*([c["clocks.sm"] for c in r["gpus"]] for r in readings), strict=False)]
    return "; ".join([f"CPU clocks {cpu} ({readings[0]['cpu_source']})", *(f"GPU clock {card}" for card in gpu)])


def measured_on(sources: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """One sentence for pages: each machine with its CPU clocks, where they were read, and the sources of figures there.

    Args:
        sources: (source, environment).
    """
    machines: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for source, environment in sources:
        machines.setdefault(machine_line(environment), []).append((source, environment))
    written = []
    for machine, found in machines.items():
        keys = ("clocks_at_start", "clocks_at_end")
        read = [mhz for _, each in found for key in keys for mhz in each.get(key, {}).get("cpu_mhz") or []]
        clocks = f"; CPU clocks {_span(read)}" if read else ""
        written.append(f"{machine}{clocks}: {'; '.join(source for source, _ in found)}.")
    return "Measured on " + " On ".join(written)


def read_clocks(cpufreq: Path = CPUFREQ, cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """Now: `cpu_mhz` of each CPU that this process may use, its `cpu_source`, and `gpus` as nvidia-smi reports them.

    `cpu_mhz` is None where neither file system has it.
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
    return {"cpu_mhz": None, "cpu_source": "this system reports none", "gpus": nvidia_smi(GPU_CLOCKS)}


def nvidia_smi(fields: tuple[str, ...]) -> list[dict[str, str]]:
    """`fields` of each NVIDIA GPU as nvidia-smi reports them, units included; empty where there is no GPU."""
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


def _cpu(cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    try:
        first, _, _ = cpuinfo.read_text().partition("\n\n")
    except OSError:
        first = ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    kind = {name: fields[field] for field, name in CPU_KIND.items() if field in fields}
    flags = fields.get("flags", "").split()
    return {
        "model": processor(),
        **{name: int(value) if value.isdecimal() else value for name, value in kind.items()},
        **{"cores": os.cpu_count(), "cores_usable": usable_cpus(), "isa": [flag for flag in ISA if flag in flags]},
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
