"""The table of predictions: its columns, its provenance, and how outcomes become Arrow record batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import ser_batch
from ser_batch.bundle import Bundle
from ser_batch.decode import Decoded
from ser_batch.engines.protocol import Engine
from ser_batch.scorer import Scores

STATUSES = ("ok", "error")
SECONDS = ("start", "end", "duration")
COUNTS = ("sample_rate", "channels")
NAMESPACE = "ser_batch."
"""Prefix of the schema metadata's keys."""
VERSION_FIELDS = (pa.field("source_size", pa.int64()), pa.field("source_mtime_ns", pa.int64()))
"""Columns of a part that the finished table leaves out: which version of the input a row is about."""


def schema(bundle: Bundle, engine: Engine, *, branch_columns: bool = True) -> pa.Schema:
    """Columns of the finished table, with the provenance of every row in the metadata.

    One float32 column a label (`p_<label>` fused, `<branch>_p_<label>` each branch's own): larger than a list
    column by a tenth, and plain in every reader. Only `file` and `status` are never null.
    """
    words = pa.dictionary(pa.int16(), pa.string())
    names = [f"p_{label}" for label in bundle.labels]
    if branch_columns:
        names += [f"{b.name}_p_{label}" for b in bundle.manifest.branches for label in bundle.labels]
    fields = [
        pa.field("file", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in SECONDS),
        *(pa.field(name, pa.int32()) for name in COUNTS),
        pa.field("label", words),
        *(pa.field(name, pa.float32()) for name in ("score", *names)),
        pa.field("status", words, nullable=False),
        pa.field("error", pa.string()),
    ]
    return pa.schema(fields, metadata=_provenance(bundle, engine))


def _provenance(bundle: Bundle, engine: Engine) -> dict[str, str]:
    clip = bundle.manifest.clip
    rule = {"sample_rate": clip.sample_rate, "samples": clip.samples, "offset": clip.offset}
    values = {
        "version": ser_batch.__version__,
        "bundle_id": bundle.id,
        "bundle_sha256": bundle.sha256,
        "labels": json.dumps(bundle.labels),
        "branches": json.dumps([branch.name for branch in bundle.manifest.branches]),
        "backend": engine.name,
        "precision": engine.precision,
        "device": engine.device,
        "clip": json.dumps(rule),
    }
    return {NAMESPACE + key: value for key, value in values.items()}


def part_schema(table: pa.Schema) -> pa.Schema:
    """Columns of a part: those of the table, and the version of each input."""
    return pa.schema([*table, *VERSION_FIELDS], metadata=table.metadata)


def record_batch(part: pa.Schema, labels: Sequence[str], outcomes: Sequence[Decoded], scores: Scores) -> Any:
    """Rows of a part, built column by column.

    Args:
        part: a `part_schema`.
        outcomes: one a row, in order; those without an error have a row each in `scores`, in the same order.

    Returns:
        pyarrow.RecordBatch of `part`.
    """
    ok = np.array([outcome.error is None for outcome in outcomes], dtype=bool)
    clips = [outcome.clip for outcome in outcomes if outcome.clip]
    columns = {
        "file": _strings([outcome.source.file for outcome in outcomes]),
        **{name: _numbers([getattr(clip, name) for clip in clips], np.float64, ok) for name in SECONDS},
        **{name: _numbers([getattr(clip, name) for clip in clips], np.int32, ok) for name in COUNTS},
        "label": _words(scores.fused.argmax(axis=1), labels, ok),
        "score": _numbers(scores.fused.max(axis=1, initial=0), np.float32, ok),
        "status": _words((~ok).astype(np.int16), STATUSES, np.ones_like(ok)),
        "error": _strings([outcome.error for outcome in outcomes]),
    }
    for index, field in enumerate(VERSION_FIELDS):
        versions = [outcome.version[index] for outcome in outcomes]
        columns[field.name] = _numbers(versions, np.int64, np.ones_like(ok))
    for prefix, rows in (("", scores.fused), *((f"{name}_", rows) for name, rows in scores.branches.items())):
        for index, label in enumerate(labels):
            columns[f"{prefix}p_{label}"] = _numbers(rows[:, index], np.float32, ok)
    return pa.RecordBatch.from_arrays([columns[name] for name in part.names], schema=part)


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
