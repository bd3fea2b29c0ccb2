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
        *(pa.field(name, pa.float64()) for name in ("start", "end", "duration")),
        *(pa.field(name, pa.int32()) for name in ("sample_rate", "channels")),
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
    best = scores.fused.argmax(axis=1) if len(scores.fused) else np.empty(0, dtype=np.int64)
    clips = [outcome.clip for outcome in outcomes]
    columns: dict[str, Any] = {
        "file": [outcome.source.file for outcome in outcomes],
        **{
            name: [getattr(clip, name) if clip else None for clip in clips]
            for name in ("start", "end", "duration", "sample_rate", "channels")
        },
        "label": _words(_spread(best, ok, np.int16), labels, ~ok),
        "score": _masked(scores.fused.max(axis=1, initial=0), ok),
        "status": _words((~ok).astype(np.int16), STATUSES),
        "error": [outcome.error for outcome in outcomes],
        "source_size": [outcome.version[0] for outcome in outcomes],
        "source_mtime_ns": [outcome.version[1] for outcome in outcomes],
    }
    for prefix, rows in (("", scores.fused), *((f"{name}_", rows) for name, rows in scores.branches.items())):
        for index, label in enumerate(labels):
            columns[f"{prefix}p_{label}"] = _masked(rows[:, index], ok)
    return pa.RecordBatch.from_arrays(
        [_array(columns[field.name], field.type) for field in part], schema=part
    )


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _spread(values: npt.NDArray[Any], ok: npt.NDArray[np.bool_], dtype: Any) -> npt.NDArray[Any]:
    """Put `values` at the rows that are `ok`, and zeros at the others."""
    full = np.zeros(len(ok), dtype=dtype)
    full[ok] = values
    return full


def _masked(values: npt.NDArray[np.float32], ok: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(_spread(values, ok, np.float32), mask=~ok)


def _words(
    indices: npt.NDArray[np.int16], words: Sequence[str], null: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=null), pa.array(words, pa.string()))
