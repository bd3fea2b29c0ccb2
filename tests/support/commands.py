"""`ser-batch run` in this process, and in one of its own that can be stopped or killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from select import select

from ser_batch.cli import main
from ser_batch.output.destination import Output

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME = ("--backend", "onnxruntime")
"""What `auto` takes for a toy bundle, too, after it has imported every other: for runs in processes of their own."""


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments)])


class Commands:
    """Runs in processes of their own, one at a time: forks of one that has imported everything.

    So are their decode processes: Python's start takes longer than the runs.
    """

    def __init__(self) -> None:
        command, pipe = [sys.executable, "-c", SERVER], subprocess.PIPE
        self._server = subprocess.Popen(command, cwd=REPOSITORY, bufsize=0, stdin=pipe, stdout=pipe)

    def start(self, *arguments: object, dies: tuple[int, Path, str] = (0, Path("/"), "")) -> Command:
        """Start a run on ONNX Runtime with parts of two rows.

        Args:
            dies: (n, folder, pattern): the process ends itself, as `kill -9` would, before the n-th time that it opens
                for writing, renames or deletes something in the folder, counted from when it meets a file whose name
                matches the pattern. 0: it never does.
        """
        assert self._server.stdin
        moment, home, after = dies
        given = [moment, str(home), after, ["run", *map(str, arguments), *RUNTIME]]
        self._server.stdin.write(json.dumps(given).encode() + b"\n")
        return Command(self._server)

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()


class Command:
    """A run under way."""

    errors = ""
    """What it wrote to standard error, when it has ended."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdout
        self._told = server.stdout
        self.pid = int(self._told.readline())

    def ended(self) -> bool:
        return bool(select([self._told], [], [], 0)[0])

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that killed it."""
        status, self.errors = json.loads(self._told.readline())
        return int(status)

    def wait_for_parts(self, out: Path, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(list(Path(str(Output.parse(out).folder)).glob("part-*.parquet"))) < count:
            if self.ended() or out.exists():
                return
            assert time.monotonic() < deadline
            time.sleep(0.002)


# Parts of two rows, so that there is something to keep, and much to go wrong, at any moment. Moments are counted in
# what is done to the disk, not in seconds: a slow machine must not make them all the same.
# Ctrl-C as a terminal sends it: what a shell starts in the background, CI too, ignores it from birth.
SERVER = """
import fnmatch, json, os, signal, sys
import ser_batch.decode.process, ser_batch.engines.onnxruntime, ser_batch.output.compaction, ser_batch.output.parts
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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(theirs, 2)
    if left:
        sys.addaudithook(hook)
    status = main(arguments)
    sys.stderr.flush()
    os._exit(status)
for line in sys.stdin:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        live(*json.loads(line))
    print(child, flush=True)
    os.close(theirs)
    with open(ours) as errors:
        told = errors.read()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told]), flush=True)
"""
