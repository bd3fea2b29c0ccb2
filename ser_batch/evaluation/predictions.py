"""A finished table of predictions, read back: of `ser_batch.output.schema`, or what others saved of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError

NAMESPACE = b"ser_batch."


@dataclass(frozen=True)
class PredictionTable:
    """Rows of a predictions file, in its order."""

    files: tuple[str, ...]
    ok: npt.NDArray[np.bool_]
    """(N,) whether the recording was scored."""
    labels: tuple[str, ...]
    models: dict[str, npt.NDArray[np.float64]]
    """FUSED and each branch that has columns: (N, C) probabilities, NaN where a recording was not scored."""
    provenance: dict[str, str]
    """Bundle, backend, precision and version, if the file still says so."""


def among(table: PredictionTable, labels: Sequence[str]) -> PredictionTable:
    """The table as if the model knew `labels` alone: their probabilities, in the model's order, rescaled to sum to 1.

    A model is so measured on a corpus that holds some of its labels only. Where all of them have probability 0, each
    gets the same.

    Raises InputError for a label that the model does not know, and for fewer than two.
    """
    unknown = sorted(set(labels) - set(table.labels))
    if unknown or len(set(labels)) < 2:
        raise InputError(
            f"no label {unknown[0]!r} to choose among" if unknown else "choosing among labels takes two or more",
            got=", ".join(labels),
            expected=f"some of {', '.join(table.labels)}",
        )
    kept = [i for i, label in enumerate(table.labels) if label in labels]
    models = {}
    for name, rows in table.models.items():
        chosen = rows[:, kept]
        total = chosen.sum(axis=1, keepdims=True)
        chosen = np.where(total == 0, 1.0, chosen)
        models[name] = chosen / chosen.sum(axis=1, keepdims=True)
    return replace(table, labels=tuple(table.labels[i] for i in kept), models=models)


def read_predictions(path: Path) -> PredictionTable:
    """Read a predictions Parquet.

    The label order is the metadata's, or that of the columns `p_<label>` in files whose metadata is lost.

    Raises InputError for a file that is no such table, holds a recording twice, or contradicts itself.
    """
    table = _read(path)
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k.startswith(NAMESPACE)}
    provenance = {k[len(NAMESPACE) :].decode(): v.decode() for k, v in metadata.items()}
    labels = _labels(path, table.column_names, provenance)
    files = tuple(table["file"].to_pylist())
    file, times = next(iter(Counter(files).most_common(1)), ("", 0))
    if times > 1:
        raise InputError(f"{path} holds {file} {times} times", expected="one row per recording")
    ok = np.array([status == "ok" for status in table["status"].to_pylist()], dtype=bool)
    models = {name: _probabilities(path, table, f"{prefix}p_", labels) for name, prefix in _models(table, labels)}
    for name, rows in models.items():
        bad = ok & ~np.isfinite(rows).all(axis=1)
        if bad.any():
            first = files[int(np.flatnonzero(bad)[0])]
            raise InputError(f"{path}: {first} has status ok and no finite probabilities", got=f"model {name}")
    _check_winner(path, table, files, ok, labels, models[FUSED])
    return PredictionTable(files, ok, labels, models, provenance)


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
    for name in ("file", "status"):
        if name not in table.column_names:
            raise InputError(f"{path} is no table of predictions", got=f"no column {name!r}")
    return table


def _labels(path: Path, columns: list[str], provenance: dict[str, str]) -> tuple[str, ...]:
    try:
        labels = tuple(json.loads(provenance["labels"]))
    except (KeyError, ValueError, TypeError):
        labels = tuple(name[2:] for name in columns if name.startswith("p_"))
    if len(labels) < 2:
        raise InputError(f"{path} is no table of predictions", got="no columns p_<label>")
    return labels


def _models(table: Any, labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, prefix of its columns) of the fusion and of each branch that has columns."""
    own, suffix = {f"p_{label}" for label in labels}, f"_p_{labels[0]}"
    branches = [c.removesuffix(suffix) for c in table.column_names if c.endswith(suffix) and c not in own]
    return [(FUSED, ""), *((branch, f"{branch}_") for branch in branches)]


def _probabilities(path: Path, table: Any, prefix: str, labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    names = [prefix + label for label in labels]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", expected=f"one per label: {', '.join(labels)}")
    try:
        columns = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in names]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: columns {prefix}… are no numbers") from error
    return np.stack(columns, axis=1)


def _check_winner(
    path: Path,
    table: Any,
    files: tuple[str, ...],
    ok: npt.NDArray[np.bool_],
    labels: tuple[str, ...],
    fused: npt.NDArray[np.float64],
) -> None:
    """Refuse a table whose `label` is not the one with the largest probability: its columns are mixed up."""
    if "label" not in table.column_names:
        return
    for file, scored, stated, row in zip(files, ok, table["label"].to_pylist(), fused, strict=True):
        if scored and (stated not in labels or row[labels.index(stated)] < row.max()):
            raise InputError(
                f"{path}: the label of {file} is not the one with the largest probability",
                got=stated,
                expected=labels[int(row.argmax())],
            )
