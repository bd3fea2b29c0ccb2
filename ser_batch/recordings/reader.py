"""The one reader of the tables that people keep: CSV and its kin, JSON, Parquet, Excel, lists of paths.

A table comes back as its owner saved it, but that the columns with a meaning of their own have their types. What the
columns mean is in `columns`; the files of other tools in `annotations`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from ser_batch.arrow import strings
from ser_batch.errors import InputError
from ser_batch.recordings.annotations import PARSERS, Segments, from_json, parse_audacity
from ser_batch.recordings.embedded import audio_field, without_audio
from ser_batch.recordings.endings import SEGMENTS, UNREADABLE, ending
from ser_batch.recordings.json_tables import as_text, column, from_objects, json_lines, rows_in
from ser_batch.recordings.kaldi import parse_scp, parse_segments
from ser_batch.recordings.media import Media
from ser_batch.recordings.text_tables import (
    TITLES,
    Problems,
    decoded,
    decompressed,
    looks_delimited,
    parse_delimited,
    titles,
)
from ser_batch.storage.objects import readable
from ser_batch.storage.urls import join, split
from ser_batch.text import terminal_safe

PATHS = (
    *("path", "file", "file_name", "filename", "filepath", "file_path"),
    *("audio_filepath", "audio_path", "audio_file", "audio", "wav", "file_id"),
)
"""Columns that name the file of a recording, the preferred one first."""
TIMES = ("start", "end", "duration", "offset")
Read = tuple[pa.Table, Problems] | Segments
PROBLEM = "ser_batch.problem"
"""Column that says what is wrong with a row; it is there only if something is."""
EXPECTED = "CSV, TSV, JSON lines, Parquet, Excel's .xlsx, .txt, .m3u, wav.scp, Kaldi's segments, or a file of segments"
ANNOTATIONS = {b"ser_batch": b"segments"}
"""Metadata of a table that was a file of another tool's segments."""


def plain(name: str) -> str:
    """The name of a column as it is looked for: `File Name` is `file_name`."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def find_column(table: pa.Table, names: Sequence[str]) -> str | None:
    """The column of a table that has the first of `names`, or else one that differs in case and blanks only."""
    for name in names:
        if name in table.column_names:
            return name
    forgiven = {plain(name): name for name in reversed(table.column_names)}
    return next((forgiven[plain(name)] for name in names if plain(name) in forgiven), None)


def shown(names: Sequence[str]) -> str:
    """Names of columns for a message: what is no table may have long ones, and what a terminal would obey."""
    some = ", ".join(terminal_safe(name[:40]) for name in names[:20])
    return some + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


def read_table(path: str, root: str | None = None) -> pa.Table:
    """A table as its owner saved it; of audio inside Parquet all but the bytes.

    Columns that name files, ids, labels and times have these types; types of other columns are guessed, but numbers
    that would lose digits stay text. A list of paths has the column `path`. A broken row has a `PROBLEM`.

    Args:
        root: where the audio of other tools' segments is looked for; None: beside the file.

    Raises:
        InputError: it cannot be read as such a table.
    """
    kind = ending(path)
    if kind in UNREADABLE:
        raise InputError(
            f"the table {path} is of a kind that is not read",
            got=kind,
            expected=EXPECTED,
            remedy="Save it as one of these.",
        )
    try:
        read = FORMATS.get(kind, _csv)(path)
        table, problems = _placed(read, path, root) if isinstance(read, Segments) else read
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"the table {path} cannot be read", got=reason) from error
    except InputError as error:
        raise InputError(
            f"the table {path} {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    for index, name in enumerate(table.column_names):
        kind_of_column = pa.string() if pa.types.is_null(table[name].type) else column_type(name)
        if kind_of_column and plain(name) not in TIMES:
            with suppress(pa.ArrowException):
                field = table.schema.field(index).with_type(kind_of_column)
                table = table.set_column(index, field, table[name].cast(kind_of_column))
    if problems:
        reasons = strings([problems.get(row) for row in range(len(table))])
        table = table.append_column(PROBLEM, reasons)
    return table


def _placed(segments: Segments, path: str, root: str | None) -> tuple[pa.Table, Problems]:
    """Segments as a table, with the path of their audio."""
    media = Media(path, root)
    places = [media.find(names) for names in segments.media]
    rows = [{"path": place} | row for (place, _), row in zip(places, segments.rows, strict=True)]
    problems = {row: reason for row, (_, reason) in enumerate(places) if reason}
    table, problems = from_objects(rows, dict.fromkeys(segments.untimed, "has no times") | problems)
    table = table if rows else pa.table({"path": pa.array([], pa.string())})
    return table.replace_schema_metadata(ANNOTATIONS), problems


def column_type(name: str) -> pa.DataType | None:
    """The type of a column of text that is not guessed: a label 01 stays what it is."""
    return pa.string() if plain(name) in (*PATHS, *TIMES, "id", "label") else None


def _known(name: str) -> bool:
    return plain(name) in PATHS


def _text(path: str) -> str:
    return decoded(decompressed(_content(path)))


def _content(path: str) -> bytes:
    source = readable(path)
    content: bytes = Path(path).read_bytes() if isinstance(source, str) else source.read()
    return content


def _csv(path: str) -> Read:
    delimiter = "\t" if ending(path) in (".tsv", ".tab") else None
    return parse_delimited(_text(path), column_type, _known, delimiter)


def _paths(path: str) -> Read:
    """A path per line; or a label track of Audacity; or, as Excel saves "Unicode text", a table."""
    text = _text(path)
    if (segments := parse_audacity(text)) is not None:
        return segments
    if looks_delimited(text, _known):
        return parse_delimited(text, column_type, _known)
    return _path_table(line for line in text.splitlines() if line.strip())


def _playlist(path: str) -> Read:
    """M3U: lines that begin with # are about the next one."""
    lines = (line.strip() for line in _text(path).splitlines())
    return _path_table(line for line in lines if line and not line.startswith("#"))


def _path_table(lines: Iterable[str]) -> tuple[pa.Table, Problems]:
    return pa.table({"path": strings(lines)}), {}


def _scp(path: str) -> Read:
    return parse_scp(_text(path))


def _kaldi_segments(path: str) -> Read:
    """Kaldi's `segments`, with wav.scp and, if it is there, utt2spk beside it."""
    folder = split(path)[0]
    try:
        scp = _text(join(folder, "wav.scp"))
    except OSError as error:
        raise InputError("has no wav.scp beside it that can be read", got=error.strerror or error) from error
    try:
        speakers = _text(join(folder, "utt2spk"))
    except OSError:
        speakers = None
    return parse_segments(_text(path), scp, speakers)


def _segments(path: str) -> Segments:
    return PARSERS[ending(path)](_text(path))


def _json(path: str) -> Read:
    """JSON lines, one list of objects, or a document of another tool."""
    text = _text(path)
    if ending(path) == ".json":
        with suppress(ValueError):
            value = json.loads(text)
            segments = from_json(value)
            return segments or from_objects(rows_in(value, _known), {})
    content = text.encode("utf-8", "surrogatepass")
    if not text.lstrip().startswith("["):
        from pyarrow import json as arrow_json

        try:
            # One block, since types are guessed from the first.
            options = arrow_json.ReadOptions(block_size=max(len(content), 1 << 20), use_threads=False)
            table = arrow_json.read_json(pa.BufferReader(content), options)
        except pa.ArrowException:
            return from_objects(*json_lines(text))
        return from_objects(*json_lines(text)) if any(map(_is_misread, table.schema)) else (table, {})
    return from_objects(json.loads(text), {})


def _is_misread(field: pa.Field) -> bool:
    """Whether a name or an id was taken for a time or a fraction: 2021-05-03, or a number of thirty digits."""
    kind = field.type
    guessed = pa.types.is_timestamp(kind) or (pa.types.is_floating(kind) and plain(field.name) not in TIMES)
    return guessed and column_type(field.name) is not None


def _parquet(path: str) -> Read:
    import pyarrow.parquet as pq

    with pq.ParquetFile(readable(path)) as file:
        schema = file.schema_arrow
        audio = audio_field(schema)
        names = [name for name in schema.names if audio is None or name != audio.name]
        table = file.read(names)
        if audio is not None:
            table = table.add_column(schema.names.index(audio.name), *without_audio(file, audio))
    return table, {}


def _excel(path: str) -> Read:
    """The first sheet of a workbook that names a known column, from there on: titles may stand above."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError("needs openpyxl to be read", remedy="pip install 'ser-batch[xlsx]'") from error
    import io
    import zipfile

    try:
        book = openpyxl.load_workbook(io.BytesIO(_content(path)), read_only=True, data_only=True)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(error) from error
    sheets = [[row for row in sheet.iter_rows(values_only=True) if any(_filled(row))] for sheet in book.worksheets]
    sheets = [rows[titles([_texts(row) for row in rows[:TITLES]], _known) :] for rows in sheets]
    rows = next((rows for rows in sheets if rows and any(map(_known, _texts(rows[0])))), None)
    rows = rows or next((rows for rows in sheets if rows), None)
    if rows is None:
        raise InputError("holds nothing", expected="a first row that names columns")
    names = ["" if cell is None else str(cell).strip() for cell in rows[0]]
    wanted = [place for place, name in enumerate(names) if name]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"has the column {twice!r} twice", got=", ".join(filter(None, names)))
    cells = {names[place]: [row[place] if place < len(row) else None for row in rows[1:]] for place in wanted}
    return pa.table({name: _typed(name, values) for name, values in cells.items()}), {}


def _texts(row: tuple[Any, ...]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in row]


def _filled(row: tuple[Any, ...]) -> list[bool]:
    return [cell is not None and cell != "" for cell in row]


def _typed(name: str, values: list[Any]) -> pa.Array:
    """A column of a sheet; what names things is text there, and a whole number has no point."""
    if plain(name) in (*PATHS, "id", "label"):
        whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        return strings([as_text(value) for value in whole])
    return column(values)


FORMATS: dict[str, Callable[[str], Read]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab"), _csv),
    **dict.fromkeys((".jsonl", ".ndjson", ".jl", ".json"), _json),
    ".parquet": _parquet,
    **dict.fromkeys((".xlsx", ".xlsm"), _excel),
    **dict.fromkeys((".txt", ".lst"), _paths),
    **dict.fromkeys((".m3u", ".m3u8"), _playlist),
    ".scp": _scp,
    SEGMENTS: _kaldi_segments,
    **dict.fromkeys(PARSERS, _segments),
}
"""Ending of a table's name -> what reads it: a table, and what is wrong with rows; or segments."""
