"""Named arrays in one .npz file, read without pickle, and only if the names are exactly those expected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import BundleError

Array = npt.NDArray[Any]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to `path`, compressed; equal arrays give equal bytes, so their sha256 is stable."""
    # An open file, because given a name numpy would append ".npz" to it.
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: frozenset[str]) -> dict[str, Array]:
    """Read every array of `path`, whose names must be exactly `names`.

    Raises:
        BundleError: the file is missing or damaged, holds pickled objects, or has other names.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = set(archive.files)
            arrays = {name: archive[name] for name in archive.files} if found == names else {}
    except Exception as error:
        # Damaged bytes raise whatever the zip, deflate and npy parsers meet first: there is no closed list.
        raise BundleError(f"{path} is not a readable .npz of plain arrays", got=error) from error
    if found != names:
        raise BundleError(f"{path} holds other arrays", got=sorted(found), expected=sorted(names))
    return arrays
