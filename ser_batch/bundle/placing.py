"""Putting a finished directory where another one lies, in one step wherever the system offers one."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def put_in_place(tree: Path, root: Path, replaced: Path) -> None:
    """Move the directory `tree` to `root`; what was there goes to `replaced` or to where `tree` was.

    On Linux the two change places in one system call, so `root` is at every moment the old or the new one. Where the
    system or the file system has no such call, the old one steps aside and comes back on failure: a crash in between
    leaves it, whole, under the name `replaced`.

    Raises:
        OSError: it cannot be moved; `root` is then what it was.
    """
    if not root.exists():
        tree.replace(root)
        return
    if _exchange(tree, root):
        return
    root.replace(replaced)
    try:
        tree.replace(root)
    except OSError:
        replaced.replace(root)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places atomically; False if that cannot be done here. Source: man 2 renameat2."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):  # no C library under that name; one without the call
        return False
    paths = os.fsencode(first), os.fsencode(second)
    failed: int = renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return failed == 0
