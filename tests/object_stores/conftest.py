"""A real S3 server for the tests beside this file: Ceph's radosgw on loopback, started by `radosgw.sh`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.radosgw import PROGRAMS, Server, free_port, make_bucket


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: see tests/support/radosgw.sh for the packages")
    # A short path, since Ceph makes sockets in it.
    folder = Path(f"/tmp/ser-batch-s3-{os.getpid()}")
    found = Server(folder, free_port())
    try:
        found.script("start", str(found.port), "tester", "secret")
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in found.environment.items():
                patch.setenv(name, value)
            yield found
    finally:
        found.script("stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> str:
    """The name of a new bucket."""
    name = f"b-{abs(hash(request.node.nodeid)):x}"[:40]
    make_bucket(name)
    return name
