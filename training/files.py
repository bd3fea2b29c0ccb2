"""What `ser_batch.files` does not write: tensors and arrays, and files that several processes want at the same time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_batch.errors import TrainingError
from ser_batch.files import lock, write_atomically
from ser_batch.strict_json import parse

if TYPE_CHECKING:
    from torch import Tensor


def read_json(path: Path) -> Any:
    """The content of a JSON file; TrainingError if it is missing or damaged."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read", got=error.strerror) from error
    return parse(raw, str(path), TrainingError)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replace `path` by safetensors."""
    from safetensors.torch import save

    write_atomically(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; TrainingError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read", got=error, expected="tensors as a stage wrote them") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace `path` by a compressed .npz of `arrays`."""
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process at a time, to read a file and replace it."""
    folder.mkdir(parents=True, exist_ok=True)
    # Windows opens no folder.
    windows = sys.platform == "win32"
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT) if windows else os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
