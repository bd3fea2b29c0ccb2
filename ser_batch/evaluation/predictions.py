"""A finished table of predictions, read back: of `ser_batch.output.schema`, or what others saved of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.output.destination import Output
from ser_batch.output.schema import NAMESPACE, VERSION, handed_through
from ser_batch.recordings.endings import ending
from ser_batch.recordings.reader import PATHS, find_column, read_table

Probabilities = npt.NDArray[np.float64]
UNADAPTED = "unadapted"
"""The model's own answer in a table that `ser_batch.adaptation` has adapted: `unadapted_p_<label>`, and so on."""
ADAPTATION = f"{NAMESPACE}adaptation"
"""Key of the metadata that says how a table was adapted."""


@dataclass(frozen=True)
class PredictionTable:
    """Rows of a predictions file, in its order."""

    files: tuple[str, ...]
    ids: tuple[str, ...] | None
    """What tells rows of one file apart; None: there is a row for each file."""
    statuses: tuple[str, ...]
    labels: tuple[str, ...]
    models: dict[str, Probabilities]
    """FUSED, each branch that has columns, and UNADAPTED: (N, C) probabilities, NaN where not scored."""
    provenance: dict[str, str]
    """Bundle, backend, precision and version, if the file still says so."""
    others: pa.Table
    """Columns that a table of recordings brought, and whatever else is no prediction."""

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the recording was scored."""
        return np.array([status == "ok" for status in self.statuses], dtype=bool)

    @property
    def keys(self) -> tuple[str, ...]:
        """What each row is known by."""
        return self.ids or self.files


def among(table: PredictionTable, labels: Sequence[str]) -> PredictionTable:
    """The table as if the model knew `labels` alone: their probabilities, in the model's order, rescaled to sum to 1.

    A model is so measured on a corpus that holds some of its labels only. Where all of them have probability 0, each
    gets the same.

    Raises InputError for a label that the model does not know, and for fewer than two.
    """
    kept = places_among(table.labels, labels)
    models = {}
    for name, rows in table.models.items():
        chosen = rows[:, kept]
        total = chosen.sum(axis=1, keepdims=True)
        chosen = np.where(total == 0, 1.0, chosen)
        models[name] = chosen / chosen.sum(axis=1, keepdims=True)
    return replace(table, labels=tuple(table.labels[i] for i in kept), models=models)


def places_among(own: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Where in a model's `own` labels those stand that `labels` names, in the model's order.

    Raises InputError for a label that the model does not know, and for fewer than two.
    """
    unknown = sorted(set(labels) - set(own))
    if unknown or len(set(labels)) < 2:
        raise InputError(
            f"no label {unknown[0]!r} to choose among" if unknown else "choosing among labels takes two or more",
            got=", ".join(labels),
            expected=f"some of {', '.join(own)}",
        )
    return [place for place, label in enumerate(own) if label in labels]


def merged(table: PredictionTable, into: Mapping[str, str]) -> PredictionTable:
    """The table with the probabilities of some labels added to others', or left out where `into` is empty.

    Raises InputError if fewer than two labels are left.
    """
    labels = tuple(label for label in table.labels if label not in into)
    models = {}
    for name, rows in table.models.items():
        sums = {label: rows[:, i].copy() for i, label in enumerate(table.labels) if label in labels}
        for label, other in into.items():
            if other in sums:
                sums[other] += rows[:, table.labels.index(label)]
        models[name] = np.stack([sums[label] for label in labels], axis=1) if labels else rows[:, :0]
    without = replace(table, labels=labels, models=models)
    return among(without, labels) if any(not other for other in into.values()) else _checked_labels(without)


def _checked_labels(table: PredictionTable) -> PredictionTable:
    if len(table.labels) < 2:
        raise InputError("too few labels are left", got=", ".join(table.labels) or "none", expected="two or more")
    return table


def read_predictions(path: str | Path, *, segments: bool = False) -> PredictionTable:
    """Read predictions: a Parquet file, a folder of parts, or a table of another kind that was made of them; or that of
    another tool, with a column of paths and probabilities `p_<label>`.

    The label order is the metadata's, or that of the columns `p_<label>` in files whose metadata is lost.

    Args:
        segments: whether a recording may have several rows.

    Raises InputError for a file that is no such table, holds a recording twice, or contradicts itself.
    """
    return table_of(path, read_any(str(path)), segments=segments)


def table_of(path: str | Path, table: pa.Table, *, segments: bool = False) -> PredictionTable:
    """What `read_any` read at `path` as predictions; see `read_predictions`."""
    file = find_column(table, PATHS)
    if file is None:
        raise InputError(f"{path} is no table of predictions", got="no column 'file'")
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k.startswith(NAMESPACE.encode())}
    provenance = {k[len(NAMESPACE) :].decode(): v.decode() for k, v in metadata.items()}
    names = table.column_names
    ours = names[: len(names) - len(handed_through(names))] if VERSION[-1] in names else names
    labels = _labels(path, ours, provenance)
    files = tuple(table[file].to_pylist())
    ids = tuple(map(str, table["id"].to_pylist())) if "id" in names else None
    if not segments:
        check_once(path, ids or files)
    prefixes = _models(ours, labels, provenance)
    models = {name: _probabilities(path, table, f"{prefix}p_", labels) for name, prefix in prefixes.items()}
    scored = np.isfinite(models[FUSED]).all(axis=1)
    # Another tool's table states no status.
    statuses = tuple(table["status"].to_pylist() if "status" in names else np.where(scored, "ok", "error").tolist())
    taken = {f"{prefix}p_{label}" for prefix in prefixes.values() for label in labels}
    said = {f"{prefix}{name}" for prefix in prefixes.values() for name in ("label", "score")}
    others = table.drop_columns([name for name in ours if name in {*taken, *said, "status"}])
    found = PredictionTable(files, ids, statuses, labels, models, provenance, others)
    for name, rows in models.items():
        bad = found.ok & ~np.isfinite(rows).all(axis=1)
        if bad.any():
            first = found.keys[int(np.flatnonzero(bad)[0])]
            raise InputError(f"{path}: {first} has status ok and no finite probabilities", got=f"model {name}")
    if "status" in names:  # else `label` may be the truth
        _check_winner(path, table, found)
    return found


def is_predictions(table: pa.Table) -> bool:
    """Whether a table looks like one of predictions: then its `label` is what a model said."""
    return {"label", "status"} <= set(table.column_names) and has_probabilities(table)


def has_probabilities(table: pa.Table) -> bool:
    """Whether a table has the columns `p_<label>` of two labels or more."""
    return len([name for name in table.column_names if name.startswith("p_")]) >= 2


def read_any(path: str) -> pa.Table:
    """A Parquet file, a folder of parts, or a table of another kind, whatever its columns.

    Raises InputError for what cannot be read, or is unfinished.
    """
    if not Path(path).is_dir() and ending(path) != ".parquet" and not _is_parquet(path):
        return _with_provenance(read_table(path), path)
    return _read_parquet(path)


def _with_provenance(table: pa.Table, path: str) -> pa.Table:
    """The table, with what the Parquet that a run leaves beside it says of both."""
    beside = f"{path}.parquet"
    if not Path(beside).is_file():
        return table
    try:
        schema = pq.read_schema(beside)
    except (OSError, pa.ArrowException):
        return table
    return table.replace_schema_metadata(schema.metadata) if schema.names == table.column_names else table


def _is_parquet(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return True


def _read_parquet(path: str) -> pa.Table:
    output = Output.parse(path)
    if output.keeps_parts and not output.part_files():
        raise InputError(f"{path} holds no predictions", got="no part-000000.parquet in it")
    if output.keeps_parts and output.is_started():
        raise InputError(f"{path} is unfinished", remedy="Go on with the run first: --resume.")
    tables = []
    try:
        for stored in output.tables():
            if stored.size() is None:
                raise InputError(f"{stored} does not exist", remedy="Check the path of the predictions.")
            with pq.ParquetFile(stored.source()) as file:
                tables.append(file.read())
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
    return pa.concat_tables(tables, promote_options="permissive")


def check_once(path: str | Path, keys: Sequence[str]) -> None:
    """Refuse a table that holds a recording twice."""
    key, times = next(iter(Counter(keys).most_common(1)), ("", 0))
    if times > 1:
        raise InputError(
            f"{path} holds {key} {times} times",
            expected="one row per recording",
            remedy="Of a run with --window, measure the file of --aggregate.",
        )


def _labels(path: str | Path, columns: Sequence[str], provenance: dict[str, str]) -> tuple[str, ...]:
    try:
        labels = tuple(json.loads(provenance["labels"]))
    except (KeyError, ValueError, TypeError):
        labels = tuple(name[2:] for name in columns if name.startswith("p_"))
    if len(labels) < 2:
        raise InputError(
            f"{path} is no table of predictions",
            got="no columns p_<label>",
            expected="one of probabilities for each label, such as p_happy",
            remedy="A table of answers alone can be the SECOND of `ser-batch evaluate`.",
        )
    return labels


def _models(columns: Sequence[str], labels: Sequence[str], provenance: dict[str, str]) -> dict[str, str]:
    """Name -> prefix of its columns, of the fusion and of each branch that has columns for the same labels."""
    if "branch_labels" in provenance:
        return {FUSED: ""}
    own, suffix = {f"p_{label}" for label in labels}, f"_p_{labels[0]}"
    branches = [c.removesuffix(suffix) for c in columns if c.endswith(suffix) and c not in own]
    if "branches" in provenance:
        known = {*json.loads(provenance["branches"]), *([UNADAPTED] if "adaptation" in provenance else [])}
        branches = [branch for branch in branches if branch in known]
    return {FUSED: "", **{branch: f"{branch}_" for branch in branches}}


def _probabilities(path: str | Path, table: Any, prefix: str, labels: tuple[str, ...]) -> Probabilities:
    names = [prefix + label for label in labels]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", expected=f"one per label: {', '.join(labels)}")
    try:
        columns = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in names]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: columns {prefix}… are no numbers") from error
    return np.stack(columns, axis=1)


def _check_winner(path: str | Path, table: Any, found: PredictionTable) -> None:
    """Refuse a table whose `label` is not the one with the largest probability: its columns are mixed up."""
    if "label" not in table.column_names:
        return
    place = {label: index for index, label in enumerate(found.labels)}
    rows, stated = found.models[FUSED], table["label"].to_pylist()
    said = np.array([place.get(label, -1) for label in stated], dtype=np.int64)
    wrong = found.ok & ((said < 0) | (rows[np.arange(len(rows)), said] < rows.max(axis=1)))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{path}: the label of {found.keys[first]} is not the one with the largest probability",
            got=stated[first],
            expected=found.labels[int(rows[first].argmax())],
        )
