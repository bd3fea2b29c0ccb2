"""A predictions file against the truth: the same metrics as in training, through the served path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch import files
from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError, OutputError
from ser_batch.evaluation.metrics import Evaluation, evaluate
from ser_batch.evaluation.predictions import PredictionTable, among, read_predictions
from ser_batch.evaluation.statistics import McNemar, mcnemar
from ser_batch.evaluation.truth import RAVDESS, match, ravdess_labels, read_labels, read_part


@dataclass(frozen=True)
class Coverage:
    """What became of every row, so that no clip leaves the figures unsaid."""

    rows: int
    outside_part: int
    """Rows that are not in the chosen part of the split."""
    without_truth: int
    """Rows of the part whose label nobody states."""
    failed: int
    """Rows with a truth whose recording could not be scored: they are in no figure."""
    evaluated: int
    missing: int
    """Recordings of the part, or of the labels' file, that have no row."""
    by_base_name: int
    """Rows matched by base name, since no relative path was equal."""
    ambiguous: int
    """Rows left out because their base name stands for several recordings."""


@dataclass(frozen=True)
class ServedEvaluation:
    """Metrics of the fusion and of each branch on the clips of a predictions file."""

    predictions: str
    truth: str
    """Where the labels came from, and which part of which split."""
    provenance: dict[str, str]
    coverage: Coverage
    models: dict[str, Evaluation]
    """The fusion first."""
    against_fused: dict[str, McNemar]
    """The fusion (first) and each branch (second) on the same clips."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        models = {name: evaluation.to_dict() for name, evaluation in self.models.items()}
        return asdict(self) | {"models": models}


def evaluate_predictions(
    predictions: Path,
    labels: str,
    *,
    split: Path | None = None,
    part: str = "test",
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> ServedEvaluation:
    """Measure a predictions Parquet.

    Args:
        predictions: what `ser-batch run` wrote.
        labels: "ravdess" to read labels from the names, or a CSV or Parquet file with path and label.
        split: a run's split.json; only the recordings of its `part` are measured.
        part: "train", "validation" or "test".
        only: labels that count as answers; see `among`. Recordings of other labels are refused.
        seed: of the bootstrap.

    Raises InputError for files that cannot be read, labels outside the set, and where nothing was matched.
    """
    table = read_predictions(predictions)
    if only is not None:
        table = among(table, only)
    inside, chosen = np.ones(len(table.files), dtype=bool), match((), ())
    described = "RAVDESS file names" if labels == RAVDESS else str(labels)
    if split is not None:
        name, members = read_part(split, part)
        chosen = match(table.files, members)
        inside = np.array([found is not None for found in chosen.names], dtype=bool)
        described += f", part {part} of {name}"
    if only is not None:
        described += f", answers among {', '.join(table.labels)}"
    if labels == RAVDESS:
        stated, matching = ravdess_labels(table.files), match(table.files, table.files)
    else:
        stated = read_labels(Path(labels))
        matching = match(table.files, tuple(stated))
    truth = [stated.get(name) if name is not None else None for name in matching.names]
    known = np.array([label is not None for label in truth], dtype=bool)
    used = inside & known & table.ok
    missing = matching.missing if split is None else chosen.missing
    coverage = Coverage(
        rows=len(table.files),
        outside_part=int((~inside).sum()),
        without_truth=int((inside & ~known).sum()),
        failed=int((inside & known & ~table.ok).sum()),
        evaluated=int(used.sum()),
        missing=len(missing),
        by_base_name=len(chosen.by_base_name | matching.by_base_name),
        ambiguous=len(chosen.ambiguous | matching.ambiguous),
    )
    if not used.any():
        raise _nothing(predictions, table, described, coverage, missing)
    indices = _indices(table, [(f, t) for f, t in compress(zip(table.files, truth, strict=True), used) if t])
    models = {name: evaluate(indices, rows[used], table.labels, seed=seed) for name, rows in table.models.items()}
    right = {name: rows[used].argmax(axis=1) == indices for name, rows in table.models.items()}
    against = {name: mcnemar(right[FUSED], hits) for name, hits in right.items() if name != FUSED}
    return ServedEvaluation(str(predictions), described, table.provenance, coverage, models, against)


def _indices(table: PredictionTable, truth: list[tuple[str, str]]) -> npt.NDArray[np.int64]:
    """Class index of each (recording, label); a label that the model does not know is refused by name."""
    index = {label: i for i, label in enumerate(table.labels)}
    for file, label in truth:
        if label not in index:
            raise InputError(
                f"label {label!r} of {file} is not in the model's label set",
                expected=f"one of {', '.join(table.labels)}",
            )
    return np.array([index[label] for _, label in truth], dtype=np.int64)


def _nothing(
    predictions: Path, table: PredictionTable, described: str, coverage: Coverage, missing: tuple[str, ...]
) -> InputError:
    have = f"{coverage.rows} rows" + (f" like {table.files[0]!r}" if table.files else "")
    if coverage.failed:
        have += f", {coverage.failed} of them with a truth but not scored"
    return InputError(
        f"no clip of {predictions} can be evaluated with {described}",
        got=have,
        expected=f"scored recordings like {missing[0]!r}" if missing else "scored recordings with a known label",
        remedy="Paths are relative to the folder given to `ser-batch run`; base names count where they are unique.",
    )


def write_json(served: ServedEvaluation, path: Path) -> None:
    """Write every figure to `path`, which has its name only once it is whole; OutputError if that fails."""
    try:
        files.write_json(path, served.to_dict())
    except OSError as error:
        raise OutputError(f"{path} cannot be written", got=error.strerror or error) from error
