"""The files of a bundle: exactly those that its manifest lists, unchanged and inside it; and arrays in .npz files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import BundleError

Array = npt.NDArray[Any]


def verify_files(root: Path, files: Mapping[str, str], manifest_file: str, optional: Collection[str] = ()) -> None:
    """Check that `root` holds the manifest and exactly `files` (path -> sha256), each with its sha256.

    Args:
        optional: files that may be there, too, without a sha256.

    Raises:
        BundleError: a file is missing, damaged, not listed, not regular, or links out of `root`.
    """
    unlisted = members(root) - {manifest_file, *files, *optional}
    if unlisted:
        raise BundleError("files are not listed in the manifest", got=sorted(unlisted))
    for member in optional:
        check_inside(root, member)
    for member, expected in files.items():
        _verify_file(root, member, expected)


def _verify_file(root: Path, member: str, expected: str) -> None:
    check_inside(root, member)
    try:
        digest = sha256_of(root / member)
    except OSError as error:
        raise BundleError(f"{member} cannot be read", got=error.strerror) from error
    if digest != expected:
        raise BundleError(
            f"{member} is damaged (sha256 differs)",
            got=digest,
            expected=expected,
            remedy="Fetch the bundle again.",
        )


def members(root: Path) -> set[str]:
    """Every path under `root` that is not a real directory; a link to one is listed, not followed."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        found.update((Path(folder) / name).relative_to(root).as_posix() for name in (*names, *linked))
    return found


def check_inside(root: Path, member: str) -> None:
    """Raise BundleError if `member` links out of `root` or is no regular file; a missing one passes."""
    try:
        path = (root / member).resolve()
        inside = path.is_relative_to(root.resolve())
        special = path.exists() and not path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long; links in a circle
        raise BundleError(f"{member} cannot be followed", got=error) from error
    if not inside:
        raise BundleError(f"{member} links out of the bundle", got=path)
    # Anything else (a pipe, a device) could block the read for ever.
    if special:
        raise BundleError(f"{member} is not a regular file")


def sha256_of(path: Path) -> str:
    """Sha256 of a file, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` to `path`, compressed; equal arrays give equal bytes, so their sha256 is stable."""
    # An open file, because given a name numpy would append ".npz" to it.
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Array]:
    """Read every array of `path`, whose names must be exactly `names`, and some of `optional`.

    Raises:
        BundleError: the file is missing or damaged, holds pickled objects, or has other names.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = set(archive.files)
            fits = names <= found <= names | optional
            arrays = {name: archive[name] for name in archive.files} if fits else {}
    except Exception as error:
        # Damaged bytes raise whatever the zip, deflate and npy parsers meet first: there is no closed list.
        raise BundleError(f"{path} is not a readable .npz of plain arrays", got=error) from error
    if not fits:
        raise BundleError(f"{path} holds other arrays", got=sorted(found), expected=sorted(names))
    return arrays
