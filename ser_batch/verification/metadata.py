"""What an exported graph says about itself, read with neither onnx nor a runtime.

Only the model's top level is walked and the weights are skipped over, so a graph of any size is read at once.
Source: onnx.proto3 (ModelProto.metadata_props is field 14, of StringStringEntryProto: key 1, value 2) and
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ser_batch.errors import BundleError

SOURCE_KEY = "source_sha256"
"""Key under which a graph of lower precision names the sha256 of the fp32 graph that it was made from."""
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def read_metadata(path: Path) -> dict[str, str]:
    """The `metadata_props` of an ONNX file, key → value.

    Raises:
        BundleError: the file cannot be read, or is not a protobuf message.
    """
    try:
        with path.open("rb") as file:
            entries = [dict(_fields(io.BytesIO(entry), {_KEY, _VALUE})) for entry in _metadata_entries(file)]
        return {entry[_KEY].decode(): entry.get(_VALUE, b"").decode() for entry in entries}
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise BundleError(f"{path} is not a readable ONNX model", got=error or type(error).__name__) from error


def _metadata_entries(file: BinaryIO) -> Iterator[bytes]:
    return (content for _, content in _fields(file, {_METADATA_PROPS}))


def _fields(stream: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Number and content of the `wanted` length-delimited fields of one message; all others are passed over."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    while stream.tell() < end:
        number, kind = divmod(_varint(stream), 8)
        if kind == _VARINT:
            _varint(stream)
            continue
        if kind not in (_FIXED64, _LENGTH, _FIXED32):
            raise ValueError(f"wire type {kind}")
        size = _varint(stream) if kind == _LENGTH else {_FIXED64: 8, _FIXED32: 4}[kind]
        if stream.tell() + size > end:
            raise EOFError("a field runs past the end of the file")
        if kind == _LENGTH and number in wanted:
            yield number, stream.read(size)
        else:
            stream.seek(size, io.SEEK_CUR)


def _varint(stream: BinaryIO) -> int:
    """A base-128 integer, least significant group first; the high bit says that more follows."""
    value, shift = 0, 0
    while True:
        byte = stream.read(1)
        if not byte or shift > 63:
            raise EOFError("a number runs past its end")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
