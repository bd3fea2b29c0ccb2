"""Text as people and their tools save it: which encoding, which delimiter, which rows are broken."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ser_batch.errors import InputError

DELIMITERS = ",;\t|"
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # Before UTF-16, whose mark UTF-32's begins with.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
"""How compressed files begin."""
TITLES = 10
"""Rows among which a header is looked for."""
NO_NUMBER = r"^[+-]?0\d|^[+-]?\d{16,}$"
"""What reads as a number and is a name: 007 would come back as 7, and a double keeps only some of so many digits."""
Problems = dict[int, str]
"""What is wrong with rows of a table, by number."""


def decompressed(content: bytes) -> bytes:
    """The content of a file that may be compressed (gzip, bzip2, zstd), by how it begins.

    Raises:
        OSError: it is damaged.
    """
    kind = next((kind for start, kind in COMPRESSIONS.items() if content.startswith(start)), None)
    if kind is None:
        return content
    with pa.CompressedInputStream(pa.BufferReader(content), kind) as stream:
        plain: bytes = stream.read()
    return plain


def decoded(content: bytes) -> str:
    """Text in UTF-8, UTF-16 or UTF-32 by its mark, in UTF-16 without one, in UTF-8, or else in Windows-1252.

    Windows-1252 is Latin-1 with letters where Latin-1 has control codes, and what spreadsheets call ANSI.

    Raises:
        ValueError: it is none of them.
    """
    codec = next((codec for mark, codec in BOMS if content.startswith(mark)), None)
    if codec is None and b"\0" in content[:2]:
        codec = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    if codec is not None:
        return content.decode(codec)
    for codec in ("utf-8", "cp1252"):
        try:
            return content.decode(codec)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def parse_delimited(
    text: str, types: Callable[[str], pa.DataType | None], known: Callable[[str], bool], delimiter: str | None = None
) -> tuple[pa.Table, Problems]:
    """A table whose first line names the columns.

    Types are guessed, but numbers that would lose digits stay text. A row with too few cells lacks the last ones; one
    with too many is a problem.

    Args:
        types: the type of a column of that name; None: it is guessed.
        known: whether a column of that name is looked for, which tells the delimiter.
        delimiter: None: one of `DELIMITERS`, or what a first line `sep=;` says.

    Raises:
        InputError: there are no columns, or two of one name.
        ValueError: it cannot be read.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    if text[:4].lower() == "sep=" and text[5:6] == "\n":
        delimiter, text = text[4], text[6:]
    lines = text.split("\n", TITLES)
    text = "\n".join(lines[titles([re.split(rf"[{DELIMITERS}]", line) for line in lines[:TITLES]], known) :])
    if not text.strip():
        raise InputError("holds nothing", expected="a first line that names columns")
    header, body, delimiter = _header(text, known, delimiter)
    quoted = delimiter != "\t" or '"' not in body or not _has_stray_quotes(body)
    if quoted and (line := _unclosed(body, delimiter)):
        raise InputError("has a quotation mark that is never closed", got=f"line {line} below the header")
    parsed = _Text(body, header, delimiter, quoted, types)
    table, problems = parsed.read(), Problems()
    if parsed.ragged:
        parsed.body, problems = _mended(body, len(header), delimiter, quoted)
        table = parsed.read()
    for name in parsed.misread(table):
        table = table.set_column(table.column_names.index(name), name, parsed.read({name: pa.string()}).column(0))
    # What spreadsheets leave beside a table.
    unused = [name for name in header if name.startswith("column_") and pa.types.is_null(table[name].type)]
    return table.drop_columns(unused), problems


def looks_delimited(text: str, known: Callable[[str], bool]) -> bool:
    """Whether the first line of a text names several columns of which one is known."""
    line = text.lstrip().partition("\n")[0].strip()
    return any(delimiter in line and any(map(known, line.split(delimiter))) for delimiter in DELIMITERS)


def titles(rows: Sequence[Sequence[str]], known: Callable[[str], bool]) -> int:
    """How many rows stand above the header: a title or a comment each, of one cell.

    Args:
        known: whether a column of that name is looked for.
    """
    for place, row in enumerate(rows):
        cells = [cell.strip().strip('"') for cell in row if cell.strip()]
        if any(map(known, cells)):
            return place
        if len(cells) > 1 and not cells[0].startswith("#"):
            break
    return 0


def _unclosed(body: str, delimiter: str) -> int:
    """The line at which a cell begins that is quoted and never ends; 0: there is none."""
    if body.count('"') % 2 == 0:
        return 0
    rows, line = csv.reader(io.StringIO(body), delimiter=delimiter, strict=True), 0
    try:
        while True:
            line = rows.line_num + 1
            next(rows)
    except StopIteration:
        return 0
    except csv.Error as error:
        return line if "end of data" in str(error) else 0


def _header(text: str, known: Callable[[str], bool], delimiter: str | None) -> tuple[list[str], str, str]:
    """Names of the columns, what follows them, and the delimiter."""

    def split(by: str) -> tuple[list[str], str]:
        lines = io.StringIO(text)
        names = [name.strip() for name in next(csv.reader(lines, delimiter=by))]
        return names, text[lines.tell() :]

    def fit(by: str) -> tuple[bool, int]:
        names = split(by)[0]
        return any(map(known, names)), len(names)

    chosen = delimiter or max(DELIMITERS, key=fit)
    names, body = split(chosen)
    names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"has the column {twice!r} twice", got=", ".join(names[:20]), expected="each name once")
    return names, body, chosen


class _Text:
    """Rows of text under a header."""

    def __init__(
        self, body: str, names: list[str], delimiter: str, quoted: bool, types: Callable[[str], pa.DataType | None]
    ) -> None:
        self.body, self.ragged = body, False
        """`ragged`: whether a row has more or fewer cells than the header."""
        self._names, self._delimiter, self._quoted = names, delimiter, quoted
        self._types = {name: kind for name in names if (kind := types(name)) is not None}

    def read(self, only: Mapping[str, pa.DataType] | None = None) -> pa.Table:
        """The table, or some columns of it as other types."""
        from pyarrow import csv as arrow_csv

        content = self.body.encode("utf-8", "surrogatepass")
        if not content.strip():
            return pa.table({name: pa.array([], self._types.get(name, pa.string())) for name in self._names})

        def skip(_: Any) -> str:
            self.ragged = True
            return "skip"

        return arrow_csv.read_csv(
            pa.BufferReader(content),
            # One block, since types are guessed from the first.
            arrow_csv.ReadOptions(column_names=self._names, block_size=max(len(content), 1 << 20), use_threads=False),
            arrow_csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char='"' if self._quoted else False,
                newlines_in_values=self._quoted,
                invalid_row_handler=skip,
            ),
            arrow_csv.ConvertOptions(column_types=only or self._types, include_columns=list(only or ())),
        )

    def misread(self, table: pa.Table) -> list[str]:
        """Columns taken for numbers of which one would not keep its digits."""
        from pyarrow import compute

        numeric = {
            field.name: pa.string()
            for field in table.schema
            if field.name not in self._types and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
        }
        if not numeric:
            return []
        texts = self.read(numeric)
        return [name for name in numeric if compute.any(compute.match_substring_regex(texts[name], NO_NUMBER)).as_py()]


def _has_stray_quotes(body: str) -> bool:
    """Whether quotation marks are part of the text: as marks around cells they would join cells."""
    return any("\t" in cell for row in csv.reader(io.StringIO(body), delimiter="\t") for cell in row)


def _mended(body: str, columns: int, delimiter: str, quoted: bool) -> tuple[str, Problems]:
    """The same rows with as many cells as there are columns, and those that had too many."""
    rows, problems = io.StringIO(), Problems()
    quoting: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    writer = csv.writer(rows, delimiter=delimiter, lineterminator="\n", **quoting)
    number = 0
    for cells in csv.reader(io.StringIO(body), delimiter=delimiter, **quoting):
        if not cells:
            continue
        if any(cells[columns:]):
            problems[number] = f"has {len(cells)} cells; expected {columns}, as many as there are columns"
        writer.writerow((cells + [""] * columns)[:columns])
        number += 1
    return rows.getvalue(), problems
