"""An archive of any size, made of links to a few recordings, and whole runs of `ser-batch` over it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from bench.processes import SER_BATCH, Finished, run_process
from ser_batch.errors import InputError
from ser_batch.recordings.sources import Source
from ser_batch.storage.urls import is_url

SOME_FAILED = 3
"""Exit code of `ser-batch run` where recordings, not the run, are bad."""


def link_recordings(sources: Sequence[Source], audio: Path, count: int, start: int = 0) -> None:
    """Add links to `sources`, going round, to the folder `audio`: numbers `start` … `start + count - 1`.

    Raises:
        InputError: a recording is in an object store.
    """
    audio.mkdir(exist_ok=True)
    links = itertools.islice(enumerate(itertools.cycle(sources)), start, start + count)
    for number, source in links:
        if is_url(source.path):
            raise InputError("an archive of links needs files on this machine", got=source.path)
        path = os.path.abspath(source.path)  # noqa: PTH100 — names need not be UTF-8
        os.symlink(path, audio / f"{number:08d}{Path(path).suffix}")  # noqa: PTH211


def run_archive(folder: Path, bundle: Path | None, backend: str, *flags: str) -> Finished:
    """`ser-batch run` on `folder`/audio into `folder`/preds.parquet, in a process of its own.

    Args:
        backend: "name" or "name:precision".
        flags: of `ser-batch run`, besides.

    Raises:
        EngineError: the run failed as a whole.
    """
    name, _, precision = backend.partition(":")
    command = [*SER_BATCH, "run", str(folder / "audio"), "--out", str(folder / "preds.parquet"), "--backend", name]
    command += ["--precision", precision] if precision else []
    command += ["--bundle", str(bundle)] if bundle else []
    return run_process([*command, *flags], allowed=(0, SOME_FAILED))
