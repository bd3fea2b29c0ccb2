"""Tables of predictions as `ser-batch run` writes them, from probabilities that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.arrow import numbers, strings, words
from ser_batch.output.schema import STATUSES

Columns = Mapping[str, pa.Array]


def write_predictions(
    path: Path,
    labels: Sequence[str],
    files: Sequence[str],
    probabilities: np.ndarray,
    *,
    statuses: Sequence[str] | None = None,
    errors: Sequence[str | None] | None = None,
    facts: Columns | None = None,
    handed: Columns | None = None,
    branch: str | None = None,
) -> Path:
    """Write a table to `path`.

    Args:
        files: (N,).
        probabilities: (N, C); rows whose status is not ok are not looked at.
        facts: columns of ours beside these, such as start and level.
        handed: columns that a table of recordings brought.
        branch: name of a branch that says the same.
    """
    statuses = statuses or ["ok"] * len(files)
    ok = np.array([status == "ok" for status in statuses])
    p = probabilities.astype(np.float32)[ok]
    table = {
        "file": strings(files),
        **(facts or {}),
        "label": words(p.argmax(axis=1), labels, ok),
        "score": numbers(p.max(axis=1), np.float32, ok),
        **{f"p_{label}": numbers(p[:, i], np.float32, ok) for i, label in enumerate(labels)},
        **{f"{branch}_p_{label}": numbers(p[:, i], np.float32, ok) for i, label in enumerate(labels) if branch},
        "status": words([STATUSES.index(status) for status in statuses], STATUSES),
        "error": strings(errors or [None] * len(files)),
        "source_size": numbers([1] * len(files), np.int64),
        "source_mtime_ns": numbers([1] * len(files), np.int64),
        **(handed or {}),
    }
    metadata = {
        "ser_batch.labels": json.dumps(list(labels)),
        "ser_batch.branches": json.dumps([branch] if branch else []),
        "ser_batch.bundle_id": "toy-1",
    }
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), path, row_group_size=100)
    return path


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
