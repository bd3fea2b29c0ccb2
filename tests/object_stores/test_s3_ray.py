"""A run on real Ray whose recordings and rows are in a real S3: names go to the actors, which fetch the objects."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import EngineError
from ser_batch.output.destination import Output
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.ray.cluster import Placement
from ser_batch.pipeline.ray.executor import RayExecutor
from ser_batch.pipeline.run import run as run_it
from ser_batch.storage.bucket import PATIENCE, open_bucket
from support.commands import run
from support.processes import mortal
from support.radosgw import Server, make_bucket
from support.ray_cluster import actors, job, nodes, watch
from support.recordings import sources
from support.stores import objects, put_folder

pytestmark = [pytest.mark.s3, pytest.mark.ray]
RECORDINGS = 96
FAILURES = 19
ON_RAY = ("--engine", "ray", "--ray-actors", 1, "--ray-cpus", 1)
__all__ = ["nodes"]


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[str, pa.Table]:
    """A prefix of small recordings, some bad, and the table of a local run over the same objects."""
    make_bucket("spoken")
    folder = tmp_path_factory.mktemp("spoken")
    sources(folder, RECORDINGS)
    put_folder("spoken", "audio", folder)
    out = "s3://spoken/whole.parquet"
    assert run("s3://spoken/audio", "--out", out, "--bundle", toy_bundle.root, "--quiet", "--threads", 1) == 3
    return "s3://spoken/audio", read(out)


def read(out: str) -> pa.Table:
    """A finished output in one file, versions of its objects included."""
    (file,) = Output.parse(out).tables()
    return pq.ParquetFile(file.source()).read()


def test_a_killed_driver_and_then_a_killed_actor_cost_nothing(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, nodes: Any
) -> None:
    audio, table = whole
    out = f"s3://{bucket}/out.parquet"
    options = ("--bundle", toy_bundle.root, "--threads", 1, *ON_RAY)
    # The lock, then a part of 16 rows for each answer.
    assert mortal(4, audio, "--out", out, *options) == -signal.SIGKILL
    assert run(audio, "--out", out, *options) == 2
    killed: list[int] = []

    def look(progress: Progress) -> None:
        if progress.files >= 16 and not killed:
            killed.append(actors(nodes)[0])
            os.kill(killed[0], signal.SIGKILL)

    given = job(audio, out, toy_bundle, resume=True)  # type: ignore[arg-type]
    done = run_it(given, RayExecutor(Placement(nodes.address, cpus=1)), watch(look))
    assert killed
    assert 16 <= done.summary.reused < RECORDINGS
    assert (done.summary.rows, done.summary.failures) == (RECORDINGS, FAILURES)
    assert read(out).equals(table)
    assert objects(bucket, "") == ["out.parquet"]


def test_a_store_that_is_gone_stops_the_actors_and_no_recording_fails(
    server: Server, whole: tuple[str, pa.Table], tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, table = whole
    out = tmp_path / "out.parquet"

    @contextmanager
    def gone(total: int) -> Iterator[None]:
        assert total == RECORDINGS
        server.kill()
        yield

    monkeypatch.setenv(PATIENCE, "1")
    try:
        with pytest.raises(EngineError, match=r"an actor had to stop.*cannot be reached"):
            run_it(job(audio, out, toy_bundle), RayExecutor(Placement(actors=1, cpus=1)), gone)
    finally:
        server.restart()
    assert not list(tmp_path.iterdir())
    open_bucket.cache_clear()
    assert run(audio, "--out", out, "--bundle", toy_bundle.root, "--quiet", "--resume") == 3
    assert pq.read_table(out).equals(table)


def test_actors_have_the_keys_of_their_machine_and_not_of_the_driver(
    whole: tuple[str, pa.Table],
    tmp_path: Path,
    toy_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        cluster = request.getfixturevalue("nodes")
    with pytest.raises(EngineError, match=rf"{gethostname()}: the store refuses access.*`ray start`"):
        run_it(job(whole[0], tmp_path / "out.parquet", toy_bundle), RayExecutor(Placement(cluster.address, cpus=1)))
    assert not list(tmp_path.iterdir())
