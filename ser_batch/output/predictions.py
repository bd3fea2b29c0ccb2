"""The table of predictions: its columns, its provenance, and how rows become Arrow record batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import ser_batch
from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import Bundle
from ser_batch.decode.source import Decoded
from ser_batch.engines.protocol import EngineIdentity
from ser_batch.engines.scorer import Scores
from ser_batch.output.parquet import take

STATUSES = ("ok", "silent", "short", "error")
HEARD: dict[str, type[np.generic]] = {
    **dict.fromkeys(("start", "end", "duration"), np.float64),
    **dict.fromkeys(("sample_rate", "channels"), np.int32),
    "level": np.float32,
}
"""Columns that say what was heard, as in `ser_batch.decode.source.Segment`."""
NAMESPACE = "ser_batch."
"""Prefix of the schema metadata's keys."""
VERSION = ("source_size", "source_mtime_ns")
"""Columns that say which version of the input a row is about."""


def schema(
    bundle: Bundle,
    engine: EngineIdentity,
    hearing: Hearing,
    *,
    branch_columns: bool = True,
    carried: pa.Schema | None = None,
) -> pa.Schema:
    """Columns of the finished table, with the provenance of every row in the metadata.

    One float32 column a label (`p_<label>` fused, `<branch>_p_<label>` each branch's own): larger than a list
    column by a tenth, and plain in every reader. `file`, `status` and the input's size and time are never null.
    """
    words = pa.dictionary(pa.int16(), pa.string())
    names = [f"p_{label}" for label in bundle.labels]
    if branch_columns:
        names += [f"{b.name}_p_{label}" for b in bundle.manifest.branches for label in bundle.labels]
    fields = [
        pa.field("file", pa.string(), nullable=False),
        *(pa.field(name, pa.from_numpy_dtype(kind)) for name, kind in HEARD.items()),
        pa.field("label", words),
        *(pa.field(name, pa.float32()) for name in ("score", *names)),
        pa.field("status", words, nullable=False),
        pa.field("error", pa.string()),
        *(pa.field(name, pa.int64(), nullable=False) for name in VERSION),
    ]
    ours = {field.name for field in fields}
    # The label that a table of recordings gives must not pass for the one predicted.
    fields += [each.with_name(f"given_{each.name}" if each.name in ours else each.name) for each in carried or ()]
    return pa.schema(fields, metadata=_provenance(bundle, engine, hearing))


def _provenance(bundle: Bundle, engine: EngineIdentity, hearing: Hearing) -> dict[str, str]:
    values = {
        "version": ser_batch.__version__,
        "bundle_id": bundle.id,
        "bundle_sha256": bundle.sha256,
        "labels": json.dumps(bundle.labels),
        "branches": json.dumps([branch.name for branch in bundle.manifest.branches]),
        "backend": engine.name,
        "precision": engine.precision,
        "device": engine.device,
        "clip": hearing.to_json(),
    }
    return {NAMESPACE + key: value for key, value in values.items()}


def record_batch(
    table: pa.Schema, labels: Sequence[str], rows: Sequence[Decoded], scores: Scores, carried: pa.Table | None = None
) -> Any:
    """Rows of the table, built column by column.

    Args:
        table: its `schema`.
        rows: one a row, in order; those with status "ok" have a row each in `scores`, in the same order.
        carried: columns handed through, with a row for each source; they are the last of the table.

    Returns:
        pyarrow.RecordBatch of `table`.
    """
    ok = np.array([row.status == "ok" for row in rows], dtype=bool)
    heard = np.array([row.segment is not None for row in rows], dtype=bool)
    segments = [row.segment for row in rows if row.segment is not None]
    every = np.ones_like(ok)
    statuses = [STATUSES.index(row.status) for row in rows]
    columns = {
        "file": _strings([row.source.file for row in rows]),
        **{name: _numbers([getattr(each, name) for each in segments], kind, heard) for name, kind in HEARD.items()},
        "label": _words(scores.fused.argmax(axis=1), labels, ok),
        "score": _numbers(scores.fused.max(axis=1, initial=0), np.float32, ok),
        "status": _words(statuses, STATUSES, every),
        "error": _strings([row.error for row in rows]),
    }
    for index, name in enumerate(VERSION):
        columns[name] = _numbers([row.version[index] for row in rows], np.int64, every)
    for prefix, values in (("", scores.fused), *((f"{name}_", given) for name, given in scores.branches.items())):
        for index, label in enumerate(labels):
            columns[f"{prefix}p_{label}"] = _numbers(values[:, index], np.float32, ok)
    arrays = [columns[name] for name in table.names if name in columns]
    if carried is not None:
        taken = take(carried, [row.source.row for row in rows])
        arrays += [column.combine_chunks() for column in taken.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table)


# Arrays are made from buffers: pa.array imports pandas where it is installed, which takes half a second.


def _numbers(values: npt.ArrayLike, dtype: npt.DTypeLike, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Put `values` at the rows that are `valid`, and null at the others."""
    full = np.zeros(len(valid), dtype=dtype)
    full[valid] = values
    kind = pa.from_numpy_dtype(full.dtype)
    return pa.Array.from_buffers(kind, len(full), [_bitmap(valid), pa.py_buffer(full)])


def _words(indices: npt.ArrayLike, words: Sequence[str], valid: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(_numbers(indices, np.int16, valid), _strings(words))


def _strings(values: Sequence[str | None]) -> pa.Array:
    raw = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(raw) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in raw], out=offsets[1:])
    valid = np.array([value is not None for value in values], dtype=bool)
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)


def _bitmap(valid: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
