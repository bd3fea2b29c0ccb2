"""The run on real Ray: a cluster of two nodes on this machine, of which processes and one node are killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ser_batch.pipeline.ray.cluster
from ser_batch.bundle.bundle import Bundle
from ser_batch.pipeline.progress import Listener, Progress
from ser_batch.pipeline.ray.cluster import Placement
from ser_batch.pipeline.ray.executor import RayExecutor
from ser_batch.pipeline.run import run as run_it
from ser_batch.recordings.recording import Recording
from ser_batch.recordings.table import Recordings
from support.commands import run
from support.ray_cluster import actors, job, nodes, watch
from support.recordings import sources, write

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ser-batch[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.ray]
__all__ = ["nodes"]
RECORDINGS = 160


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[Path, pa.Table]:
    """A folder of small recordings, some bad, and the table of a local run."""
    root = tmp_path_factory.mktemp("whole")
    sources(root / "audio", RECORDINGS)
    run_it(job(root / "audio", root / "whole.parquet", toy_bundle))
    return root / "audio", pq.read_table(root / "whole.parquet")


def test_an_actor_and_a_node_killed_cost_nothing(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, table = whole
    killed: list[str] = []
    outlast: list[str] = []

    def wait_for(threads: set[threading.Thread]) -> None:
        waited_for(threads)
        outlast.extend(thread.name for thread in threads if thread.is_alive())

    waited_for = ser_batch.pipeline.ray.cluster._wait_for
    monkeypatch.setattr(ser_batch.pipeline.ray.cluster, "_wait_for", wait_for)

    def look(progress: Progress) -> None:
        if progress.files >= 40 and not killed:
            killed.append("actor")
            os.kill(actors(nodes)[0], signal.SIGKILL)
        elif progress.files >= 80 and len(killed) == 1:
            killed.append("node")
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    out = tmp_path / "o.parquet"
    done = run_it(job(audio, out, toy_bundle), RayExecutor(Placement(nodes.address, cpus=1)), watch(look))
    assert killed == ["actor", "node"]
    assert pq.read_table(out).equals(table)
    assert pq.read_schema(out).equals(table.schema, check_metadata=True)
    assert (done.summary.rows, done.summary.reused, done.summary.failures) == (RECORDINGS, 0, 32)
    assert not outlast  # Waiting for a thread that never ends would hold every run up.


def test_what_ray_began_the_local_run_goes_on_with_and_back(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle, nodes: Any
) -> None:
    audio, table = whole
    out = tmp_path / "o.parquet"

    def interrupted(at: int) -> Callable[[int], AbstractContextManager[Listener]]:
        def look(progress: Progress) -> None:
            if progress.files >= at:
                raise KeyboardInterrupt

        return watch(look)

    given = job(audio, out, toy_bundle, resume=True)
    there = RayExecutor(Placement(nodes.address, cpus=1))
    with pytest.raises(KeyboardInterrupt):
        run_it(given, there, interrupted(30))
    with pytest.raises(KeyboardInterrupt):
        run_it(replace(given, batch_size=8), None, interrupted(30))
    done = run_it(given, there)
    assert 60 <= done.summary.reused < RECORDINGS
    assert pq.read_table(out).equals(table)
    assert [path.name for path in tmp_path.iterdir()] == ["o.parquet"]


def test_a_recording_that_kills_every_actor_is_a_row_at_the_end(
    whole: tuple[Path, pa.Table],
    tmp_path: Path,
    toy_bundle: Bundle,
    nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audio, table = whole

    def poisoned(self: Recordings, recording: Recording) -> None:
        if recording.name == "050.wav":
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Recordings, "content", poisoned)
    out = tmp_path / "o.parquet"
    done = run_it(job(audio, out, toy_bundle), RayExecutor(Placement(nodes.address, cpus=1)))
    found = pq.read_table(out)
    assert found["error"][50].as_py() == "every process that scored it was lost"
    rest = [number for number in range(RECORDINGS) if number != 50]
    assert found.take(rest).equals(table.take(rest))
    assert done.summary.failures == 33


def test_a_ray_of_its_own_has_every_option_of_a_run(
    tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audio").mkdir()
    lines = ["path,label,speaker"]
    for number in range(30):
        write(tmp_path / "audio" / f"{number}.wav", 1.0 + number / 10, rate=16_000)
        lines.append(f"audio/{number}.wav,sad,s{number}")
    (tmp_path / "m.csv").write_text("\n".join([*lines, "audio/absent.wav,sad,x", ""]))
    monkeypatch.chdir(tmp_path)
    for engine in ("local", "ray"):
        given = ("m.csv", "--out", f"{engine}.parquet", "--aggregate", f"{engine}-files.parquet", "--shard", "1/2")
        options = ("--bundle", toy_bundle.root, "--window", 1, "--engine", engine, "--threads", 1, "--json")
        on_ray = ("--ray-actors", 1, "--ray-cpus", 1) if engine == "ray" else ()
        assert run(*given, *options, *on_ray) in (0, 3)
        assert [line[0] for line in capfd.readouterr().out.splitlines()][-1:] == ["{"]
    for name in ("", "-files"):
        local, there = (pq.read_table(f"{engine}{name}.parquet") for engine in ("local", "ray"))
        assert len(local) > 10
        assert there.equals(local)
    assert not ray.is_initialized()
