"""Ceph's radosgw on loopback, as `radosgw.sh` starts it, and buckets in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("radosgw.sh")
PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "curl")


class Server:
    """A running server, and what a client needs in its environment."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.environment = {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            # Commands set these for a store that is not Amazon's; the library leaves the environment alone.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def script(self, action: str, *arguments: str) -> None:
        done = subprocess.run(["bash", SCRIPT, action, self.folder, *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"radosgw.sh {action}: {done.stderr[-3000:]}")

    def kill(self) -> None:
        """Kill the gateway; what it holds stays in the cluster."""
        os.kill(int((self.folder / "rgw.pid").read_text()), signal.SIGKILL)

    def restart(self) -> None:
        self.script("gateway", str(self.port))

    def admin(self, *arguments: str) -> str:
        command = ["radosgw-admin", "-c", self.folder / "ceph.conf", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def free_port() -> int:
    """A port that is free, and the one after it, too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def make_bucket(name: str) -> None:
    """Make a bucket, which ser-batch itself never does."""
    from pyarrow import fs

    fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True).create_dir(name)
