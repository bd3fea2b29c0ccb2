"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.progress import Listener


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Two nodes of one CPU each; the driver of a run is on the first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def job(audio: Path, out: Path, bundle: Bundle, **changes: Any) -> RunConfig:
    return RunConfig((str(audio),), str(out), bundle.root, "onnxruntime", threads=1, **changes)


def watch(look: Listener) -> Callable[[int], AbstractContextManager[Listener]]:
    return lambda total: nullcontext(look)


def actors(cluster: Any) -> list[int]:
    """Process ids of the scoring actors of this cluster, and of no other."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]
            ours = cluster.address.encode() in Path(f"/proc/{parent}/cmdline").read_bytes()
            if ours and b"TaskScorer" in process.joinpath("cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
