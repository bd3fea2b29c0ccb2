"""How a path is written where text must be valid: in tables, identifiers and messages."""

from __future__ import annotations

import os


def printable(path: str) -> str:
    r"""Give `path` as valid UTF-8 with `/` as its separator.

    A path with undecodable bytes has each of them written `\xNN`, and its backslashes doubled.
    """
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
