"""Audio inside Parquet, as Hugging Face's datasets keep it: a struct of `bytes` and `path`, or plain binary."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import strings
from ser_batch.errors import AudioError, InputError
from ser_batch.recordings.recording import Recording
from ser_batch.storage.objects import attempt, readable
from ser_batch.storage.urls import is_url, join, split

MARK = {b"ser_batch": b"audio inside"}
"""Metadata of a column that stands for audio inside its table."""


def audio_field(schema: pa.Schema) -> pa.Field | None:
    """The column that holds audio files, or structs with the paths of some: `audio`, or else the only one like it.

    Raises:
        InputError: `audio` holds decoded samples, or something else that is no file.
    """
    named = next((schema.field(name) for name in schema.names if name.strip().lower() == "audio"), None)
    if named is None:
        alike = [field for field in schema if parts_of(field) >= {"bytes", "path"}]
        return alike[0] if len(alike) == 1 else None
    if pa.types.is_struct(named.type) and not parts_of(named) & {"bytes", "path"}:
        raise InputError(
            f"has no audio in its column {named.name!r}",
            got=f"a struct of {', '.join(sorted(parts_of(named)))}",
            expected="paths, binary, or a struct of bytes and path, as datasets save it undecoded",
            remedy="Cast the column to Audio(decode=False) before saving.",
        )
    return named if pa.types.is_struct(named.type) or _is_binary(named.type) else None


def without_audio(file: pq.ParquetFile, audio: pa.Field) -> tuple[pa.Field, pa.Array]:
    """The paths in the column, null where there are none; its field is marked where bytes are inside."""
    has_bytes = _is_binary(audio.type) or "bytes" in parts_of(audio)
    field = pa.field(audio.name, pa.string(), metadata=MARK if has_bytes else None)
    if "path" not in parts_of(audio):
        return field, strings([None] * file.metadata.num_rows)
    return field, paths_in(file.read([f"{audio.name}.path"]).column(0))


def paths_in(column: pa.ChunkedArray) -> pa.Array:
    """The paths in a column of structs."""
    return strings([None if value is None else value["path"] for value in column.to_pylist()])


def is_audio_column(field: pa.Field) -> bool:
    """Whether a column, read as above, stands for audio that a Parquet file holds."""
    return bool(field.metadata) and MARK.items() <= field.metadata.items()


def parts_of(field: pa.Field) -> set[str]:
    """Names of the parts of a column of structs; of other columns, none."""
    if not pa.types.is_struct(field.type):
        return set()
    return {field.type.field(index).name for index in range(field.type.num_fields)}


def _is_binary(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.binary_view())


class EmbeddedAudio:
    """The recordings in Parquet files, read a row group at a time as they are asked for in order."""

    def __init__(self, files: Sequence[str]) -> None:
        self._groups: list[tuple[str, int, int]] = []
        """(file, row group, its first row within the file)"""
        self._starts: list[int] = []
        total = 0
        for file in files:
            metadata = pq.read_metadata(readable(file))
            within = 0
            for group in range(metadata.num_row_groups):
                self._groups.append((file, group, within))
                self._starts.append(total)
                within += metadata.row_group(group).num_rows
                total += metadata.row_group(group).num_rows
        self._loaded = -1
        self._audio: Any = None

    def place(self, row: int) -> tuple[str, int]:
        """The file that holds a row, and the row's number within it."""
        group = bisect_right(self._starts, row) - 1
        file, _, within = self._groups[group]
        return file, within + row - self._starts[group]

    def content(self, recording: Recording) -> bytes:
        """The bytes of the recording in row `recording.embedded`; without any, those of the file that its path names.

        Raises:
            AudioError: the row is null, or the file cannot be read any more.
            StoreError: the store that the file is in is away.
        """
        group = bisect_right(self._starts, recording.embedded) - 1
        file, number, _ = self._groups[group]
        try:
            if group != self._loaded:
                self._audio = None
                self._audio = attempt(file, lambda: _read_group(file, number))
                self._loaded = group
            value: Any = self._audio[recording.embedded - self._starts[group]].as_py()
        except (OSError, pa.ArrowException) as error:
            raise AudioError(f"{recording.name!r} cannot be read from its table", got=error) from error
        if isinstance(value, dict):
            value = value["bytes"]
        return _beside(file, recording.name) if value is None else value


def _beside(table: str, name: str) -> bytes:
    """The content of a file that a table names and does not hold."""
    path = join(split(table)[0], name)
    if not is_url(path) and Path(path).is_file():
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise AudioError("cannot be read", got=error.strerror) from error
    raise AudioError(f"{name!r} is not in its table", got="null", expected="bytes, or the path of a file")


def _read_group(file: str, number: int) -> Any:
    with pq.ParquetFile(readable(file)) as opened:
        audio = audio_field(opened.schema_arrow)
        if audio is None:
            raise OSError("the column of audio is gone")
        column = audio.name if _is_binary(audio.type) else f"{audio.name}.bytes"
        return opened.read_row_group(number, [column]).column(0)
