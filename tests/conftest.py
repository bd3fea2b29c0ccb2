"""Fixtures that every test file may use; tests marked `shared` are skipped where ../shared is absent."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ser_batch.bundle.bundle import Bundle
from support.commands import Commands
from support.nursery import Nursery
from support.shared_data import RAVDESS, SHARED
from support.toy import make_toy_bundle

if TYPE_CHECKING:
    from support.toy_exports import Exports

TESTS = Path(__file__).parent
STARTED = ("ser_batch/decode", "ser_batch/audio", "bench/test_throughput.py")
"""Where decode processes are what is tested, or measured, and so start as a run starts them."""


def pytest_configure(config: pytest.Config) -> None:
    """No test asks a hub, which a machine without a network would wait for; a worker of pytest-xdist takes one core."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=f"no shared data at {SHARED}"))


def pytest_collection_finish() -> None:
    """The garbage collector need not look through what is imported by now, nor so often: exports take a sixth less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Certificates and engines go to folders of the tests, never to the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield folder


@pytest.fixture(scope="session")
def decoder_nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    opened = Commands()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def forked_decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode processes are forks of one, which takes a tenth of starting them."""
    where = request.path.relative_to(TESTS).as_posix()
    if os.name == "posix" and not where.startswith(STARTED):
        monkeypatch.setattr("ser_batch.decode.process.subprocess", request.getfixturevalue("decoder_nursery"))


@pytest.fixture(scope="session")
def ravdess() -> Path:
    """Root of the RAVDESS speech recordings, one folder an actor."""
    if not RAVDESS.is_dir():
        pytest.skip(f"no RAVDESS at {RAVDESS}")
    return RAVDESS


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A valid bundle of two small real ONNX graphs, eight labels, the default clip rule; read only."""
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="session")
def embedding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with an embedding of eight numbers, the second output of its first branch; read only."""
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "embedding", embedding=True)


@pytest.fixture(scope="session")
def head_bundle(embedding_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same graphs with a head of three labels for an answer; read only."""
    from support.bundles import with_head

    return with_head(embedding_bundle, tmp_path_factory.mktemp("bundles") / "head")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two tiny untrained branches, as `ser-train run` leaves it; read only."""
    from support.toy_run import make_toy_run

    return make_toy_run(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """`export.onnx.export_branch`, for tests that are not about it: the same branch is exported once a session."""
    from support.toy_exports import Exports

    # For all workers of pytest-xdist.
    base = tmp_path_factory.getbasetemp()
    return Exports((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports")


@pytest.fixture(scope="session")
def exported_bundle(toy_run: Path, exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that `ser-export onnx` makes of `toy_run`; read only."""
    from export.cli import main
    from ser_batch.bundle.bundle import load_bundle

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.assemble.export_branch", exports)
        assert main(["onnx", str(toy_run), "--out", str(folder)]) == 0
    return load_bundle(folder)


@pytest.fixture
def exported_before(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of `toy_run` take the graphs that torch gave for `exported_bundle`."""
    monkeypatch.setattr("export.assemble.export_branch", exports)
