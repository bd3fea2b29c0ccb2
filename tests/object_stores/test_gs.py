"""Google's protocol, spoken by gcp-storage-emulator on loopback: not Google's own server, but a real one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.recordings.find import find_recordings
from ser_batch.storage.bucket import open_bucket
from support.commands import run
from support.processes import mortal
from support.radosgw import free_port
from support.stores import objects, put, table, undisturbed

pytestmark = pytest.mark.gs
PROGRAM = "gcp-storage-emulator"
RECORDINGS = 12


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the one bucket of a running server."""
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"no {PROGRAM} on the PATH: pip install {PROGRAM} in an environment of its own")
    port, root = free_port(), tmp_path_factory.mktemp("gs")
    command = [program, "-d", str(root), "start", "--host", "127.0.0.1", "--port", str(port), "--default-bucket", "b"]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        try:
            _wait_for(port)
            open_bucket.cache_clear()
            yield "b"
        finally:
            open_bucket.cache_clear()
            server.kill()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="module")
def whole(bucket: str, tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[str, pa.Table]:
    """A prefix of small recordings, some bad, and the table of an undisturbed run over the same files on disk."""
    root, prefix = tmp_path_factory.mktemp("whole"), "speech/audio"
    return f"gs://{bucket}/{prefix}", undisturbed(bucket, prefix, root, RECORDINGS, toy_bundle, "gs")


@pytest.mark.parametrize("name", ["out.parquet", "out/"])
def test_killed_and_resumed_the_table_is_that_of_files(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, name: str
) -> None:
    audio, expected = whole
    out = f"gs://{bucket}/killed/{name}"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--resume")
    assert [mortal(moment, *arguments) for moment in (2, 4, 5)].count(-signal.SIGKILL) >= 2
    assert run(*arguments, "--quiet") == 3
    assert table(out).equals(expected)
    assert run(*arguments, "--quiet") == 3  # nothing is left to do
    assert table(out).equals(expected)
    assert not [key for key in objects(bucket, "killed", "gs") if ".lock" in key or ".parts/" in key]


def test_the_rules_are_those_of_files(
    whole: tuple[str, pa.Table], bucket: str, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, expected = whole
    arguments = (audio, "--out", f"gs://{bucket}/out.parquet", "--bundle", toy_bundle.root, "--quiet")
    assert run(*arguments) == 3
    assert run(*arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 3
    assert table(f"gs://{bucket}/out.parquet").equals(expected)


def test_globs_see_folders_that_no_object_marks(bucket: str, whole: tuple[str, pa.Table]) -> None:
    put(bucket, [("tree/a/1.wav", b"RIFF"), ("tree/b/c/2.wav", b"RIFF"), ("tree/3.wav", b"RIFF")], "gs")
    assert [each.name for each in find_recordings([f"gs://{bucket}/tree"])] == ["3.wav", "a/1.wav", "b/c/2.wav"]
    assert [each.name for each in find_recordings([f"gs://{bucket}/tree/*/*.wav"])] == ["a/1.wav"]
    assert [each.name for each in find_recordings([f"gs://{bucket}/t*/*/c/*.wav"])] == ["tree/b/c/2.wav"]
    assert len(find_recordings([f"gs://{bucket}/sp*/**/*.*"])) == RECORDINGS


def test_what_is_not_there_is_told_apart(
    whole: tuple[str, pa.Table],
    bucket: str,
    toy_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audio, out = whole[0], tmp_path / "out.parquet"
    more = ("--bundle", toy_bundle.root, "--quiet")
    assert run(f"gs://{bucket}/nothing", "--out", out, *more) == 2
    assert f"'gs://{bucket}/nothing' does not exist" in capsys.readouterr().err
    assert run("gs://none/nothing", "--out", out, *more) == 2
    assert "there is no bucket gs://none" in capsys.readouterr().err
    assert run(audio, "--out", "gs://none/out.parquet", *more) == 2
    assert "there is no bucket gs://none" in capsys.readouterr().err
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("SER_BATCH_STORE_PATIENCE", "0")
    open_bucket.cache_clear()
    assert run(audio, "--out", out, *more) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert not os.path.lexists(out)
    open_bucket.cache_clear()
