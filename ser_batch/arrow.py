"""Arrow arrays made from buffers.

`pa.array` imports pandas where that is installed: half a second and 50 MB that no run needs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(values: npt.ArrayLike, dtype: npt.DTypeLike, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """`values` (n,) as an array.

    Args:
        valid: (m,) which rows the values belong to, in order; the others are null. None: each row has one.
    """
    if valid is None:
        full = np.ascontiguousarray(values, dtype=dtype)
    else:
        full = np.zeros(len(valid), dtype=dtype)
        full[valid] = values
    buffers = [None if valid is None else _bitmap(valid), pa.py_buffer(full)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(full.dtype), len(full), buffers)


def vectors(
    values: npt.NDArray[np.floating[Any]], dtype: npt.DTypeLike, valid: npt.NDArray[np.bool_]
) -> pa.FixedSizeListArray:
    """`values` (n, D) as an array of lists of D numbers; see `numbers`."""
    full = np.zeros((len(valid), values.shape[1]), dtype=dtype)
    full[valid] = values
    kind = pa.list_(pa.from_numpy_dtype(full.dtype), values.shape[1])
    return pa.Array.from_buffers(kind, len(full), [_bitmap(valid)], children=[numbers(full.ravel(), dtype)])


def strings(values: Iterable[str | bytes | None], *, kind: pa.DataType | None = None) -> pa.Array:
    """`values` as an array of strings, or of `kind`, which may also be a large or a binary one; None is null."""
    kind = kind or pa.string()
    large = kind in (pa.large_string(), pa.large_binary())
    # Gathered one by one: of a hundred thousand names there is never a second copy.
    text, ends, valid = bytearray(), array("q" if large else "i", [0]), bytearray()
    for value in values:
        text += b"" if value is None else value.encode() if isinstance(value, str) else value
        ends.append(len(text))
        valid.append(value is not None)
    buffers = [_bitmap(np.frombuffer(valid, np.bool_)), pa.py_buffer(ends), pa.py_buffer(text)]
    return pa.Array.from_buffers(kind, len(valid), buffers)


def words(indices: npt.ArrayLike, choices: Sequence[str], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A dictionary array of `choices`, by number; see `numbers`."""
    return pa.DictionaryArray.from_arrays(numbers(indices, np.int16, valid), strings(choices))


def take(table: pa.Table, rows: Iterable[int] | npt.NDArray[np.int64]) -> pa.Table:
    """Rows of a table, by number."""
    chosen = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
    return table.take(numbers(chosen, np.int64))


def _bitmap(valid: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
