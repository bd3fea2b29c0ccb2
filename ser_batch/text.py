"""Text for people: names as valid UTF-8, lines that a terminal can trust, paths for others, columns that line up."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

_ABSOLUTE_PATH = re.compile(r"""(?<![\w.~:/])/[^\s'"`()/][^\s'"`()]*""")
"""Within a text: neither a URL nor the end of a relative path."""


def printable(path: str) -> str:
    r"""Give `path` as valid UTF-8 with `/` as its separator.

    A path with undecodable bytes has each of them written `\xNN`, and its backslashes doubled.
    """
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    # Not os.fsencode: where the locale is ASCII, a name from a table is no name of that encoding.
    raw = path.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def terminal_safe(text: str) -> str:
    """`text` with everything escaped that a terminal might obey: names and labels are other people's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shareable_path(path: str) -> str:
    """`path` as others may read it: an absolute one below the working directory is relative to it.

    Of any other absolute path only the last part is left: `.../preds.parquet`.
    """
    given = Path(path)
    if not given.is_absolute() or given == Path(given.anchor):
        return path
    return str(given.relative_to(Path.cwd())) if given.is_relative_to(Path.cwd()) else f".../{given.name}"


def shareable_text(text: str) -> str:
    """`text`, a message say, with each absolute path in it as `shareable_path` gives it."""
    return _ABSOLUTE_PATH.sub(lambda found: shareable_path(found[0]), text)


def shareable_command(arguments: Iterable[str]) -> str:
    """A command line for a shell, each argument and each value of an `--option=value` as `shareable_path` gives it."""
    shown = []
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        shown.append(f"{option}{equals}{shareable_path(value)}")
    return shlex.join(shown)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as aligned text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are text already; a bar within a cell stays one."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
