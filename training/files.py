"""Files that are whole or not there: written beside their name, then renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace `path` by a compressed .npz of `arrays`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.stem + ".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
