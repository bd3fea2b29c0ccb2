"""The real process, killed -9 at random moments and run again: in the end the table is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.output.destination import Output
from support.commands import REPOSITORY, run, start, wait_for_parts
from support.recordings import sources

RECORDINGS = 48
# Parts of two rows, so that there is much to go wrong; the process ends itself, as `kill -9` would, before the n-th
# time that it opens for writing, renames or deletes something of the output. Moments are counted in what is done to
# the disk, not in seconds: a slow machine must not make them all the same.
# Each is a fork of one process that has imported everything, as its decode processes are: Python's start took longer
# than the runs.
MORTAL = """
import fnmatch, json, os, signal, sys
import onnxruntime, ser_batch.decode.process, ser_batch.output.compaction, ser_batch.output.parts
import ser_batch.pipeline.run
from ser_batch.cli import main
sys.path.insert(0, "tests")
from support.nursery import Nursery
ser_batch.decode.process.subprocess = Nursery().opened()
ser_batch.output.parts.PART_ROWS, ser_batch.output.compaction.GROUP_ROWS = 2, 8
def live(left, home, after, arguments):
    def hook(event, told):
        nonlocal left, after
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(told[0]).startswith(home):
            if fnmatch.fnmatch(os.path.basename(told[0]), after):
                after = ""
            left -= not after
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    signal.alarm(120)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.addaudithook(hook)
    os._exit(main(arguments))
for line in sys.stdin:
    child = os.fork()
    if not child:
        live(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """The process that those to be killed are forks of."""
    command, pipe = [sys.executable, "-c", MORTAL], subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe) as process:
        yield process


def mortal(nursery: subprocess.Popen[str], moment: int, home: Path, *arguments: object, after: str = "*") -> bool:
    """Run, and be killed at the `moment`-th step, counted from when a file is met whose name matches `after`."""
    assert nursery.stdin and nursery.stdout
    print(json.dumps([moment, str(home), after, ["run", *map(str, arguments)]]), file=nursery.stdin, flush=True)
    status = int(nursery.stdout.readline())
    assert status in (-signal.SIGKILL, 3)
    return status == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Bundle) -> tuple[Path, pa.Table]:
    """A folder of small recordings, some bad, and the table of an undisturbed run."""
    root = tmp_path_factory.mktemp("whole")
    sources(root / "audio", RECORDINGS)
    out = root / "whole.parquet"
    assert run(root / "audio", "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--quiet") == 3
    return root / "audio", pq.read_table(out)


@pytest.mark.parametrize(
    ("name", "last_step", "kills"), [("out.parquet", ".out.parquet.*.tmp", (7, 6)), ("out/", "_SUCCESS", (4, 1))]
)
def test_killed_at_random_moments_the_table_is_the_same(
    whole: tuple[Path, pa.Table],
    nursery: subprocess.Popen[str],
    tmp_path: Path,
    toy_bundle: Bundle,
    name: str,
    last_step: str,
    kills: tuple[int, int],
) -> None:
    audio, table = whole
    output = Output.parse(f"{tmp_path}/{name}")
    arguments = (audio, "--out", f"{tmp_path}/{name}", "--bundle", toy_bundle.root, "--batch-size", 1, "--resume")
    chance = random.Random(name)
    killed = sum(mortal(nursery, chance.randint(1, 12), tmp_path, *arguments) for _ in range(kills[0]))
    # Through compaction, too: from when the finished table is begun to when the last part is deleted.
    moments = [chance.randint(1, 6) if kills[1] > 1 else 1 for _ in range(kills[1])]
    killed += sum(mortal(nursery, moment, tmp_path, *arguments, after=last_step) for moment in moments)
    assert killed == sum(kills)
    assert run(*arguments, "--quiet") == 3
    found = pa.concat_tables(pq.read_table(file.source()) for file in output.tables())
    assert found.equals(table)
    assert run(*arguments, "--quiet") == 3  # and once more: nothing to do
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]


def test_a_disk_that_fills_up_is_a_clear_end(whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle) -> None:
    audio, table = whole
    out = tmp_path / "out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process = start(*arguments)
    wait_for_parts(process, out, 2)
    # From now on the system takes no more than 100 bytes a file of this process.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"cannot be written; got File too large" in errors
    assert b"--resume" in errors
    assert b"Traceback" not in errors
    assert run(*arguments, "--resume", "--quiet") == 3
    assert pq.read_table(out).equals(table)


def test_an_output_folder_that_goes_is_a_clear_end(
    whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle
) -> None:
    audio, table = whole
    (tmp_path / "results").mkdir()
    out = tmp_path / "results" / "out.parquet"
    process = start(audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    wait_for_parts(process, out, 2)
    (tmp_path / "results").rename(tmp_path / "moved")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"cannot be written" in errors
    assert b"Traceback" not in errors
    again = tmp_path / "moved" / "out.parquet"
    assert (
        run(
            audio, "--out", again, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1, "--resume", "--quiet"
        )
        == 3
    )
    assert pq.read_table(again).equals(table)


def test_a_schedulers_sigterm_ends_clearly(whole: tuple[Path, pa.Table], tmp_path: Path, toy_bundle: Bundle) -> None:
    audio, table = whole
    out = tmp_path / "out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1, "--workers", 1)
    process = start(*arguments)
    wait_for_parts(process, out, 2)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, out.exists()) == (130, False)
    assert b"--resume" in errors
    assert run(*arguments, "--resume", "--quiet") == 3
    assert pq.read_table(out).equals(table)
