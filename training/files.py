"""Files that are whole or not there: written beside their name, then renamed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace `path` by what `write` makes of a file beside it: a kill leaves the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    write(temporary)
    temporary.replace(path)


def write_once(path: Path, write: Callable[[Path], Any]) -> None:
    """`write_whole` unless `path` is there: of processes that want it at a time one writes and the others wait.

    The lock is on the file that becomes `path`, so it ends with a killed process and leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.is_file():  # by another process, while this one waited
            _beside(path).unlink(missing_ok=True)
        else:
            write_whole(path, write)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")  # which no search for files of this kind finds


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`."""
    write_whole(path, lambda new: new.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace `path` by a compressed .npz of `arrays`."""

    def write(new: Path) -> None:
        with new.open("wb") as file:  # to a path, numpy would add .npz
            np.savez_compressed(file, **arrays)

    write_whole(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
