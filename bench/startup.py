"""`bench startup`: how long `ser-batch --help` and `ser-batch run` on one file take, from process start to exit."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import SER_BATCH, run_process
from bench.timing import Series, warnings
from ser_batch.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Startup:
    """One command, repeated, each time in a fresh process."""

    command: str
    """As a user types it."""
    seconds: Series
    peak_rss: int
    """Bytes, the largest of all repetitions."""
    warnings: list[str]


def measure_startup(audio: Path, bundle: Path, backend: str = "auto", repeats: int = 10) -> list[Startup]:
    """Time Python alone (the least possible), `--help`, and `run` on one file; the first of each is warm-up.

    Raises:
        InputError: `audio` is not a file.
        EngineError: a command failed.
    """
    if not audio.is_file():
        raise InputError(f"{audio} is not a file", expected="one recording")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "preds.parquet"
        run = ["run", str(audio), "--out", str(out), "--overwrite", "--quiet"]
        run += ["--backend", backend, "--bundle", str(bundle)]
        shown = f"ser-batch run {audio.name} --out preds.parquet"
        return [
            _measure("python -c pass", [sys.executable, "-c", "pass"], repeats),
            _measure("ser-batch --help", [*SER_BATCH, "--help"], repeats),
            _measure(shown, [*SER_BATCH, *run], repeats),
        ]


def _measure(shown: str, command: Sequence[str], repeats: int) -> Startup:
    run_process(command)
    done = [run_process(command) for _ in range(repeats)]
    series = Series.of([one.seconds for one in done])
    _log.info(f"{shown}, {repeats} times: {series.median:.3f} s")
    return Startup(shown, series, max(one.peak_rss for one in done), warnings({"total": series}))
