"""`ser-batch run` in this process, and in one of its own that can be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ser_batch.cli import main
from ser_batch.output.destination import Output

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments)])


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SLICED, "run", *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def wait_for_parts(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(Path(str(Output.parse(out).folder)).glob("part-*.parquet"))) < count:
        if process.poll() is not None or out.exists():
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


# A part every two rows, so that there is something to keep at any moment.
# Ctrl-C as a terminal sends it: what a shell starts in the background, CI too, ignores it from birth.
SLICED = """
import signal, sys, ser_batch.output.parts
from ser_batch.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
ser_batch.output.parts.PART_ROWS = 2
sys.exit(main())
"""
