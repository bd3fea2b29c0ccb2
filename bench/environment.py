"""What a figure was measured on: the machine, the versions, the commit, the command, and who else was busy."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.clocks import nvidia_smi, read_clocks
from ser_batch.machine import git_commit, processor, usable_cpus

PACKAGES = (
    *("ser-batch", "numpy", "soundfile", "soxr", "pyarrow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
    *("tensorrt-rtx-cu13-libs", "torch", "transformers", "optimum-onnx", "onnx"),
)
ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
"""Instruction sets that decide how fast a matrix product is."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def describe() -> dict[str, Any]:
    """Everything as plain JSON types; call it first, so that the load average is that before the measurement."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "load_average_at_start": None if load is None else [round(value, 2) for value in load],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "cpu": _cpu(),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "clocks_at_start": read_clocks(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": git_commit(),
    }


def concluded(environment: dict[str, Any]) -> dict[str, Any]:
    """`environment` with what the clocks are now, after the measurement that `describe` was called before."""
    return {**environment, "clocks_at_end": read_clocks()} if "clocks_at_start" in environment else environment


def summary(environment: dict[str, Any]) -> str:
    """One line for tables: processor, cores, instruction sets, GPU."""
    cpu, cards = environment["cpu"], environment["gpus"]
    parts = [f"{cpu['model']}, {cpu['cores_usable']} cores", " ".join(cpu["isa"]) or "no vector flags known"]
    return "; ".join([*parts, *(card["name"] for card in cards)])


def gpus() -> list[dict[str, str]]:
    """Name, driver, memory and clocks of each NVIDIA GPU; empty where there is none."""
    return nvidia_smi(("name", "driver_version", "memory.total", "compute_cap", "clocks.sm", "clocks.max.sm"))


def _cpu() -> dict[str, Any]:
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    flags = facts.get("flags", "").split()
    return {
        "model": processor(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cpus(),
        "isa": [flag for flag in ISA if flag in flags],
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
