"""The rows of a predictions file that an adaptation needs, read column by column: a million of them take 100 MB."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ser_batch.arrow import take
from ser_batch.errors import InputError
from ser_batch.evaluation.predictions import ADAPTATION, PredictionTable
from ser_batch.evaluation.truth import texts
from ser_batch.output.destination import Output
from ser_batch.output.parquet import read, read_schema
from ser_batch.output.schema import NAMESPACE
from ser_batch.output.stores import Stored
from ser_batch.recordings.reader import find_column, shown

SPEAKERS = ("speaker", "speaker_id", "given_speaker")
"""Columns that tell speakers apart, the preferred one first."""


@dataclass(frozen=True)
class Archive:
    """Predictions of an archive: a row for each recording, or for each segment or channel."""

    path: str
    tables: tuple[Stored, ...]
    schema: pa.Schema
    labels: tuple[str, ...]
    ok: npt.NDArray[np.bool_]
    """(N,) which rows were scored."""
    probabilities: npt.NDArray[np.float32]
    """(N, C) fused; NaN where a row was not scored."""

    def column(self, name: str) -> list[str | None]:
        """A column as text, by a name that may differ in case; InputError if there is none."""
        return texts(self._read([self._found(name)]), self._found(name))

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return find_column(self.schema.empty_table(), [name]) is not None

    def check(self, name: str) -> None:
        """Raise InputError if there is no such column."""
        self._found(name)

    def recordings(self, columns: Sequence[str]) -> tuple[PredictionTable, npt.NDArray[np.int64]]:
        """Recordings, with `columns` of their first rows, to be matched with labels; and which each row (N,) is."""
        own = [name for name in ("file", "id") if name in self.schema.names]
        table = self._read(list(dict.fromkeys([*own, *map(self._found, columns)])))
        keys = pc.dictionary_encode(table[own[-1]].cast(pa.string())).combine_chunks()
        row_of = keys.indices.to_numpy().astype(np.int64)
        first = take(table, np.unique(row_of, return_index=True)[1])
        files, ids = (tuple(map(str, first[name].to_pylist())) for name in (own[0], own[-1]))
        return PredictionTable(files, ids if "id" in own else None, (), self.labels, {}, {}, first), row_of

    def _found(self, name: str) -> str:
        found = find_column(self.schema.empty_table(), [name])
        if found is None:
            raise InputError(f"{self.path} has no column {name!r}", got=shown(self.schema.names))
        return found

    def _read(self, columns: Sequence[str]) -> pa.Table:
        return pa.concat_tables([read(table, list(columns)) for table in self.tables], promote_options="permissive")


def read_archive(path: str | os.PathLike[str]) -> Archive:
    """Read the probabilities of a file, or of a finished folder of parts.

    Raises:
        InputError: it is no such thing, or its answers are adapted already.
    """
    output = Output.parse(path)
    if output.is_started():
        raise InputError(f"{path} is unfinished", remedy="Go on with the run first: --resume.")
    tables = tuple(output.tables())
    schema = read_schema(tables[0]) if tables else None
    labels = _labels(schema)
    if schema is None or not labels:
        raise InputError(
            f"{path} is no Parquet table of predictions", expected="what ser-batch run wrote, file or folder"
        )
    if ADAPTATION.encode() in (schema.metadata or {}):
        raise InputError(f"{path} is adapted already", remedy="Give the table that the run wrote.")
    columns = [f"p_{label}" for label in labels]
    try:
        parts = [read(table, ["status", *columns]) for table in tables]
        ok = np.concatenate([pc.equal(part["status"].cast(pa.string()), "ok").to_numpy() for part in parts])
        values = [np.stack([part[name].to_numpy() for name in columns], axis=1) for part in parts]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read", got=error) from error
    found = Archive(str(path), tables, schema, labels, ok, np.concatenate(values).astype(np.float32, copy=False))
    if not ok.any():
        raise InputError(f"{path} has no scored row to adapt")
    if not np.isfinite(found.probabilities[ok]).all():
        raise InputError(f"{path} has a row with status ok and no finite probabilities")
    return found


def _labels(schema: pa.Schema | None) -> tuple[str, ...]:
    """Labels in the order of the model; none if the columns of a prediction are not all there."""
    raw = (schema.metadata or {}).get(f"{NAMESPACE}labels".encode()) if schema is not None else None
    labels = tuple(json.loads(raw)) if raw else ()
    needed = {"file", "label", "score", "status", *(f"p_{label}" for label in labels)}
    return labels if schema is not None and needed <= set(schema.names) else ()
