"""The finished table in the formats that people open, CSV, JSON lines and Excel, made of its Parquet group by group.

Parquet alone holds types and provenance, so it stays beside what is made of it: `preds.csv.parquet` beside `preds.csv`.
A run goes on with that one, and writes the other anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import strings
from ser_batch.errors import OutputError, StoreError
from ser_batch.output.parquet import row_groups, unwritable
from ser_batch.output.stores import Stored

PARQUET = (".parquet", ".pq")
EXCEL_ROWS = 1_048_575
"""Of a sheet, less its header."""
EXCEL_DIGITS = 2**53
"""Whole numbers beyond it are text in a sheet, whose numbers are float64."""
Tables = Iterable[pa.Table]


def ending(name: str) -> str:
    """The ending of an output's name, in lower case, with its dot; empty: it has none."""
    return f".{name.rpartition('.')[2].lower()}" if "." in name.lstrip(".") else ""


def is_rendered(name: str) -> bool:
    """Whether a file of that name is made of a Parquet file beside it."""
    return ending(name) in WRITERS


def check_ending(name: str) -> None:
    """Raise OutputError for a name whose ending is no format, or one that cannot be written here."""
    kind = ending(name)
    if kind not in (*PARQUET, *WRITERS):
        raise OutputError(
            f"there is no output format {kind!r}" if kind else "the output's name does not say its format",
            got=name,
            expected=f"a name that ends in {PARQUET[0]}, {', '.join(WRITERS)}, or a folder for parts: DIR/",
        )
    if kind == ".xlsx" and find_spec("openpyxl") is None:
        raise OutputError(f"{name} needs openpyxl", remedy="Install it: pip install 'ser-batch[xlsx]'.")


def check_rows(name: str, rows: int) -> None:
    """Raise OutputError for more rows than a file of that name can hold."""
    if ending(name) == ".xlsx" and rows > EXCEL_ROWS:
        raise OutputError(
            f"{name} cannot hold so many rows",
            got=f"{rows:,}",
            expected=f"{EXCEL_ROWS:,} at most in a sheet of Excel",
            remedy="Choose .parquet, .csv or .jsonl.",
        )


def render(table: Stored, out: Stored) -> None:
    """Write `out`, in the format that its name says, from the Parquet file `table`; it appears whole.

    Raises:
        OutputError: it cannot be written, or cannot hold so many rows; whatever had the name before is untouched.
    """
    metadata = pq.read_metadata(table.source())
    check_rows(out.name, metadata.num_rows)
    schema = metadata.schema.to_arrow_schema()
    tables = (_plain(group) for group in row_groups([table], schema.names))
    writer = WRITERS[ending(out.name)]
    try:
        out.store.write(out.name, lambda sink: writer(sink, schema, tables))
    except (OSError, pa.ArrowException, StoreError) as error:
        raise unwritable(out, error) from error


def _plain(table: pa.Table) -> pa.Table:
    """The table with columns that any format can hold: words as strings, lists and structs as JSON."""
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
            column = column.cast(pa.string())
        elif pa.types.is_float16(kind):
            column = column.cast(pa.float32())
        elif not (
            pa.types.is_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_date(kind)
            or pa.types.is_timestamp(kind)
        ):
            column = strings([None if value is None else _json(value) for value in column.to_pylist()])
        columns.append(column)
    return pa.table(columns, names=table.column_names)


def _write_csv(sink: BinaryIO, schema: pa.Schema, tables: Tables) -> None:
    from pyarrow import csv

    writer = None
    for table in tables:
        writer = writer or csv.CSVWriter(sink, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_json_lines(sink: BinaryIO, schema: pa.Schema, tables: Tables) -> None:
    for table in tables:
        for row in _rows(table):
            sink.write(f"{_json(dict(zip(table.column_names, row, strict=True)))}\n".encode())


def _write_excel(sink: BinaryIO, schema: pa.Schema, tables: Tables) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet, about = book.create_sheet("predictions"), book.create_sheet("provenance")

    def cell(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXCEL_DIGITS:
            return str(value)
        if hasattr(value, "tzinfo") and value.tzinfo is not None:
            return value.isoformat()
        if not isinstance(value, str):
            return value
        # A name that begins with "=" is no formula.
        text = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub(lambda found: repr(found[0])[1:-1], value))
        text.data_type = "s"
        return text

    sheet.append([cell(name) for name in schema.names])
    for table in tables:
        for row in _rows(table):
            sheet.append([cell(value) for value in row])
    for key, value in (schema.metadata or {}).items():
        if not key.startswith(b"ARROW:"):
            about.append([cell(key.decode()), cell(value.decode())])
    book.save(sink)


WRITERS: dict[str, Callable[[BinaryIO, pa.Schema, Tables], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".xlsx": _write_excel,
}


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows as Python objects; of float32, the shortest number that reads back as the same."""
    columns = [
        column.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(column.type) else column
        for column in table.columns
    ]
    return zip(*(column.to_pylist() for column in columns), strict=True)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_text)


def _finite(value: Any) -> Any:
    """A value without what JSON has no number for: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
