"""Audio inside Parquet, as Hugging Face's datasets keep it: a column `audio`, a struct of `bytes` and `path`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import AudioError
from ser_batch.recordings.recording import Recording
from ser_batch.storage.objects import attempt, readable


def is_audio_column(field: pa.Field) -> bool:
    """Whether a column holds audio files."""
    if field.name != "audio" or not pa.types.is_struct(field.type):
        return False
    return {"bytes", "path"} <= {field.type.field(index).name for index in range(field.type.num_fields)}


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
        """The bytes of the recording in row `recording.embedded`.

        Raises:
            AudioError: the row is null, or the file cannot be read any more.
            StoreError: the store that the file is in is away.
        """
        group = bisect_right(self._starts, recording.embedded) - 1
        try:
            if group != self._loaded:
                file, number, _ = self._groups[group]
                self._audio = None
                self._audio = attempt(file, lambda: _read_group(file, number))
                self._loaded = group
            value: Any = self._audio[recording.embedded - self._starts[group]].as_py()
        except (OSError, pa.ArrowException) as error:
            raise AudioError(f"{recording.name!r} cannot be read from its table", got=error) from error
        if not value or value["bytes"] is None:
            raise AudioError(f"{recording.name!r} is not in its table", got="null")
        content: bytes = value["bytes"]
        return content


def _read_group(file: str, number: int) -> Any:
    with pq.ParquetFile(readable(file)) as opened:
        return opened.read_row_group(number, ["audio.bytes"]).column(0)
