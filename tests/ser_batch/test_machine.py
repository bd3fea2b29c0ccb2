from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ser_batch import machine
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import open_engine, protocol
from ser_batch.engines.streams import Layout, layout
from ser_batch.machine import cpu_limit, cpu_quotas, usable_cpus
from ser_batch.pipeline.local import default_batch, default_workers


def system(root: Path, groups: str, **files: str) -> list[float]:
    """The quotas in a made-up /proc and /sys: `a__b` is the file a/b below /sys/fs/cgroup, where _ is a dot."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return list(cpu_quotas(root))


def test_quotas_of_version_2_hold_for_all_below(tmp_path: Path) -> None:
    found = system(
        tmp_path,
        "0::/kubepods/pod1/main\n",
        kubepods__cpuDOTmax="max 100000\n",
        kubepods__pod1__cpuDOTmax="250000 100000\n",
        kubepods__pod1__main__cpuDOTmax="400000 100000\n",
    )
    assert found == [4.0, 2.5]


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    assert system(tmp_path, "0::/\n", cpuDOTmax="150000 100000\n") == [1.5]


def test_quotas_of_version_1(tmp_path: Path) -> None:
    groups = "9:name=systemd:/\n3:cpuset:/docker/a\n2:cpu,cpuacct:/docker/a\n"
    folder = "cpu,cpuacct"
    files = {f"{folder}__cpuDOTcfs_quota_us": "300000\n", f"{folder}__cpuDOTcfs_period_us": "100000\n"}
    # The container's files are at the mount, the host's path is not to be seen.
    assert system(tmp_path / "set", groups, **files) == [3.0]
    files[f"{folder}__cpuDOTcfs_quota_us"] = "-1\n"
    assert system(tmp_path / "none", groups, **files) == []


@pytest.mark.parametrize("groups", ["", "0::/a\n", "0::/../b\n", "1:cpu:/x\n"])
def test_a_system_that_says_nothing_sets_no_limit(tmp_path: Path, groups: str) -> None:
    assert system(tmp_path, groups) == []
    assert list(cpu_quotas(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    ("affinity", "quotas", "usable", "limit"),
    [
        (64, [], 64, None),
        (64, [4.0, 2.5], 3, 3),
        (64, [0.1], 1, 1),
        (2, [4.0], 2, None),
        (2, [2.0], 2, None),
    ],
)
def test_affinity_and_quota_both_bind(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quotas: list[float], usable: int, limit: int | None
) -> None:
    monkeypatch.setattr(machine, "_affinity", lambda: affinity)
    monkeypatch.setattr(machine, "cpu_quotas", lambda: iter(quotas))
    assert (usable_cpus(), cpu_limit()) == (usable, limit)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_bound_to_one_cpu_uses_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from ser_batch.machine import usable_cpus; print(usable_cpus())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("cpus", "workers", "batch", "streams"),
    [(1, 1, 16, 1), (2, 2, 16, 2), (4, 4, 16, 4), (16, 16, 64, 16), (64, 32, 256, 64), (128, 32, 512, 128)],
)
def test_what_is_chosen_on_so_many_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: int, workers: int, batch: int, streams: int
) -> None:
    assert (default_workers(cpus), default_batch(cpus)) == (workers, batch)
    monkeypatch.setattr(machine, "_affinity", lambda: cpus)
    monkeypatch.setattr(machine, "cpu_quotas", lambda: iter(()))
    assert (default_workers(), default_batch()) == (workers, batch)
    assert layout(batch, None) == layout(batch, cpus) == Layout(streams, 1)


def test_a_runtime_gets_no_more_threads_than_the_quota(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    runtime = protocol._module("onnxruntime")
    monkeypatch.setattr(runtime, "open_bundle", lambda bundle, threads, *more: given.append(threads))
    for limit, threads in ((3, None), (3, 5), (None, None)):
        monkeypatch.setattr(protocol, "cpu_limit", lambda limit=limit: limit)
        open_engine(toy_bundle, "onnxruntime", threads)
    assert given == [3, 5, None]
