"""`bench startup`: how long `ser-batch --help` and `ser-batch run` on one file take, from process start to exit."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import SER_BATCH, Finished, run_process
from bench.timing import Series, warnings
from ser_batch.bundle.bundle import Bundle
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


def measure_startup(audio: Path, bundle: Bundle, backend: str = "auto", repeats: int = 10) -> list[Startup]:
    """Time `--help`, `run` on one file, and the least that each could take, in turns; a first turn is warm-up.

    The least is Python alone and, where `backend` is onnxruntime, a process that opens the bundle's graphs in it.

    Raises:
        InputError: `audio` is not a file.
        EngineError: a command failed.
    """
    if not audio.is_file():
        raise InputError(f"{audio} is not a file", expected="one recording")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "preds.parquet"
        run = ["run", str(audio), "--out", str(out), "--overwrite", "--quiet"]
        run += ["--backend", backend, "--bundle", str(bundle.root)]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ser-batch --help": [*SER_BATCH, "--help"],
            f"ser-batch run {audio.name} --out preds.parquet": [*SER_BATCH, *run],
        }
        if backend == "onnxruntime":
            graphs = [str(bundle.graph(branch)) for branch in bundle.manifest.branches]
            opened = f"import onnxruntime as ort; [ort.InferenceSession(path) for path in {graphs!r}]"
            commands["python, which imports onnxruntime and opens the bundle's graphs"] = [sys.executable, "-c", opened]
        turns = [{shown: run_process(command) for shown, command in commands.items()} for _ in range(1 + repeats)][1:]
    return [_startup(shown, [turn[shown] for turn in turns]) for shown in commands]


def _startup(shown: str, done: Sequence[Finished]) -> Startup:
    series = Series.of([one.seconds for one in done])
    _log.info(f"{shown}, {len(done)} times: {series.median:.3f} s")
    return Startup(shown, series, max(one.peak_rss for one in done), warnings({"total": series}))
