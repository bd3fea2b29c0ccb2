"""Files that are whole or not there: written beside their name, then renamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace `path` by what `write` makes of a file beside it: a kill leaves the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")  # which no search for files of this kind finds
    write(temporary)
    temporary.replace(path)


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
