"""Whether a directory holds exactly the files it should, unchanged and inside itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ser_batch.errors import BundleError


def verify_files(root: Path, files: Mapping[str, str], manifest_file: str, evidence: Collection[str] = ()) -> None:
    """Check that `root` holds exactly `files` (path -> sha256) and the manifest, each with its sha256.

    Args:
        evidence: files that may be there, too, without a sha256.

    Raises:
        BundleError: a file is missing, damaged, not listed, not regular, or links out of `root`.
    """
    unlisted = members(root) - {manifest_file, *files, *evidence}
    if unlisted:
        raise BundleError("files are not listed in the manifest", got=sorted(unlisted))
    for member in evidence:
        check_inside(root, member)
    for member, expected in files.items():
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
