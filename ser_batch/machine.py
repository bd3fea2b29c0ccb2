"""The machine that this process runs on, and the checkout of its code: what a figure was measured with."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path


def processor() -> str:
    """The CPU's model name, as the system states it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # platform.processor() is empty, or "x86_64", on Linux.
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def usable_cpus() -> int:
    """How many CPUs this process may use: by its affinity, and by the quotas of its control groups."""
    return cpu_limit() or _affinity()


def cpu_limit() -> int | None:
    """CPUs that quotas leave (`docker --cpus`, a pod's limit); None: no fewer than the affinity, which runtimes see."""
    limit = min((math.ceil(quota) for quota in cpu_quotas()), default=None)
    return limit if limit is not None and limit < _affinity() else None


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """CPU seconds a second that each control group above this process allows; those without a quota are left out.

    Source: cgroups(7) and https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / controllers
        group = mounted / path.lstrip("/")
        # Within a container the path may be the host's, of which only the mount itself is seen.
        for folder in [group, *group.parents][: len(group.relative_to(mounted).parts) + 1]:
            if controllers:
                words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            else:
                words = _read(folder / "cpu.max").split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and "0" not in words:
                yield int(words[0]) / int(words[1])


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, with "+" if a tracked file has changed; None outside one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def short_commit(commit: str | None) -> str:
    """Twelve digits of what `git_commit` gave, and its "+"."""
    return "unknown" if commit is None else commit.rstrip("+")[:12] + "+" * commit.endswith("+")


def package_version(name: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cache_folder() -> Path:
    """The folder of this toolkit below $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "ser-batch"


def data_folder() -> Path:
    """The folder of this toolkit below $XDG_DATA_HOME or ~/.local/share; it need not exist."""
    return Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share") / "ser-batch"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A user without a name, as in a container under a number: nothing is there, and nothing can be made there.
        return Path("/nonexistent")
