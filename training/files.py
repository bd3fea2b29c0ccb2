"""Files that are whole or not there, whoever else writes them: written beside their name, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_batch.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace `path` by what `write` makes of a file beside it: a kill leaves the old one or the new.

    `write` must fill the file that it is given, and not put another one in its place, which nobody has locked.
    """
    with _alone(path) as temporary:
        write(temporary)
        temporary.replace(path)


def write_once(path: Path, write: Callable[[Path], Any]) -> None:
    """`write_whole` unless `path` is there: of processes that want it at a time one writes and the others wait."""
    with _alone(path) as temporary:
        if path.is_file():  # by another process, while this one waited
            temporary.unlink()
        else:
            write(temporary)
            temporary.replace(path)


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file beside `path` that becomes it, for one process at a time.

    The lock is on that file itself, so it ends with a killed process, and what that one left is written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")  # which no search for files of this kind finds
    while True:
        with temporary.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file.fileno(), temporary):  # else it became `path` while this process waited
                yield temporary
                return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`."""
    write_whole(path, lambda new: new.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replace `path` by safetensors."""
    from safetensors.torch import save  # save_file would put a file of its own in the place of the locked one

    write_whole(path, lambda new: new.write_bytes(save(dict(tensors))))


def read_json(path: Path) -> Any:
    """The content of a JSON file; TrainingError for one that is not there or is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read", got=error, expected="JSON as it was written") from error


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process at a time, for what reads a file and replaces it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
