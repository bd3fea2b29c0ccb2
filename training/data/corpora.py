"""What `--data` names: a folder of RAVDESS, or a manifest of any other labelled corpus."""

from __future__ import annotations

from pathlib import Path

from ser_batch.errors import TrainingError
from training.data import manifest, ravdess
from training.data.corpus import Corpus


def load_corpus(data: Path, labels: tuple[str, ...] | None = None) -> Corpus:
    """The corpus in the RAVDESS folder or the manifest file `data`; `labels` orders a manifest's classes.

    Raises TrainingError for a corpus that is not whole or not consistent, and for labels with RAVDESS, whose label
    set is fixed.
    """
    if data.is_file():
        return manifest.load(data, labels)
    if not data.is_dir():
        raise TrainingError(f"there is no {data}", expected="a RAVDESS folder, or a .csv or .parquet manifest")
    if labels is not None:
        raise TrainingError("labels can be chosen for a manifest only; RAVDESS has its own", got=", ".join(labels))
    return ravdess.load(data)
