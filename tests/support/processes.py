"""The command line in a process of its own, with small parts, and stopped where a test wants something to happen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Parts of two rows. At the n-th request that changes the store, the process is killed while the request is under way.
MORTAL = """
import os, random, signal, sys, threading, time
import ser_batch.output.compaction, ser_batch.output.parts
from ser_batch.cli import main
from ser_batch.storage.bucket import Bucket
ser_batch.output.parts.PART_ROWS, ser_batch.output.compaction.GROUP_ROWS = 2, 8
moment, chance = int(sys.argv.pop(1)), random.Random(sys.argv.pop(1))
def die():
    time.sleep(chance.uniform(0, 0.006))
    os.kill(os.getpid(), signal.SIGKILL)
def mortal(action):
    def wrapped(*arguments):
        global moment
        moment -= 1
        if moment == 0:
            threading.Thread(target=die).start()
        return action(*arguments)
    return wrapped
for name in ("put", "delete", "delete_folder"):
    setattr(Bucket, name, mortal(getattr(Bucket, name)))
sys.exit(main())
"""
# After the third part it says so, and goes on when it is told to.
PAUSED = """
import sys
import ser_batch.output.parts
from ser_batch.cli import main
from ser_batch.output.parts import Parts
ser_batch.output.parts.PART_ROWS = 2
flush, count = Parts.flush, 0
def pausing(self):
    global count
    flush(self)
    count += 1
    if count == 3:
        print("paused", flush=True)
        sys.stdin.readline()
Parts.flush = pausing
sys.exit(main())
"""


def mortal(moment: int, *arguments: object) -> int:
    """Run until the `moment`-th change of the store; the exit code."""
    command = [sys.executable, "-c", MORTAL, str(moment), f"{moment} {arguments}", "run", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=120).returncode


@contextmanager
def paused(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run until the third part is written; `finish` lets it go on."""
    command = [sys.executable, "-c", PAUSED, "run", *map(str, arguments), "--quiet"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes)  # type: ignore[call-overload]
    try:
        assert process.stdout.readline() == "paused\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Let a paused run go on to its end; its exit code and what it said."""
    _, said = process.communicate("\n", timeout=240)
    return process.returncode, said
