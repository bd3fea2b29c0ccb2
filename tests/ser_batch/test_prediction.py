"""Predictions over an Arrow table: rows, slices, arrays, and the libraries they are handed to."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import ser_batch
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import InputError
from support.recordings import sources
from support.toy import LABELS


@pytest.fixture(scope="module")
def predictions(toy_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> ser_batch.Predictions:
    """Fourteen rows, the fourth and the ninth and the fourteenth of recordings that cannot be read."""
    folder = tmp_path_factory.mktemp("audio")
    sources(folder, 14)
    with ser_batch.load(toy_bundle.root) as model:
        return model.score_files(folder)


def test_rows_slices_and_the_end(predictions: ser_batch.Predictions) -> None:
    rows = list(predictions)
    assert [each.file for each in rows] == [f"{n:03}.wav" for n in range(14)]
    assert predictions[-1].file == "013.wav" and [each.file for each in predictions[1:4:2]] == ["001.wav", "003.wav"]
    assert [n for n, each in enumerate(rows) if each.status == "error"] == [3, 8, 13]
    with pytest.raises(IndexError):
        predictions[14]


def test_probabilities_are_an_array_with_nan_where_there_are_none(predictions: ser_batch.Predictions) -> None:
    rows = predictions.probabilities
    assert rows.shape == (14, 8) and rows.dtype == np.float32
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [3, 8, 13]
    assert [*predictions[0].probabilities.values()] == rows[0].tolist()
    assert predictions[0].score == rows[0].max() and predictions[3].probabilities == {}


def test_their_text_is_short(predictions: ser_batch.Predictions) -> None:
    lines = repr(predictions).splitlines()
    assert lines[0] == "14 predictions, 3 of recordings that failed"
    assert len(lines) == 13 and lines[-1] == "and 4 more"
    assert repr(predictions[0]).startswith(f"<Prediction {predictions[0].label} ")
    assert "cannot be decoded" in repr(predictions[3])


def test_pandas_has_the_columns_of_the_table(predictions: ser_batch.Predictions) -> None:
    pytest.importorskip("pandas")
    frame = predictions.to_pandas()
    assert [*frame.columns] == predictions.to_arrow().column_names and len(frame) == 14


def test_polars_has_the_columns_of_the_table(predictions: ser_batch.Predictions) -> None:
    pytest.importorskip("polars")
    assert predictions.to_polars().columns == predictions.to_arrow().column_names


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_library_that_is_missing_is_named(
    predictions: ser_batch.Predictions, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr("ser_batch.prediction.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"{package} is not installed. Install it: pip install {package}"):
        getattr(predictions, f"to_{package}")()


def test_embeddings_are_rows_of_numbers_where_they_were_asked_for(
    embedding_bundle: Bundle, predictions: ser_batch.Predictions, tmp_path: Path
) -> None:
    sources(tmp_path / "audio", 5)
    with ser_batch.load(embedding_bundle.root, embeddings=True) as model:
        found = model.score_files(tmp_path / "audio")
        with ser_batch.load(embedding_bundle.root) as plain:
            same = plain.score_files(tmp_path / "audio")
            with pytest.raises(InputError, match=r"loaded without embeddings\. Load it again: .*embeddings=True"):
                plain.score_files(tmp_path / "audio", embeddings=True)
        without = model.score_files(tmp_path / "audio", embeddings=False)
    vectors = found.embeddings
    assert vectors.shape == (5, 8) and vectors.dtype == np.float32
    assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == [3]
    np.testing.assert_array_equal(found[2:].embeddings, vectors[2:])
    assert found[:0].embeddings.shape == (0, 8)
    assert [None if each.embedding is None else each.embedding.tolist() for each in found] == [
        None if row == 3 else vectors[row].tolist() for row in range(5)
    ]
    assert list(found) == list(same) == list(without) and without[0].embedding is None
    for other in (without, same, predictions):
        with pytest.raises(InputError, match=r"hold no embeddings. Load .*embeddings=True"):
            _ = other.embeddings


def test_embeddings_of_a_file_are_read_too(embedding_bundle: Bundle, tmp_path: Path) -> None:
    sources(tmp_path / "audio", 2)
    ser_batch.run(tmp_path / "audio", tmp_path / "o.parquet", bundle=embedding_bundle.root, embeddings="float16")
    found = ser_batch.Predictions(pq.read_table(tmp_path / "o.parquet"))
    assert found.embeddings.dtype == np.float32
    np.testing.assert_array_equal(found.embeddings[0], np.array(found.table["embedding"][0].as_py(), np.float32))


def test_the_branches_of_a_head_have_labels_of_their_own(head_bundle: Bundle, tmp_path: Path) -> None:
    sources(tmp_path / "audio", 4)
    with ser_batch.load(head_bundle.root) as model:
        found = model.score_files(tmp_path / "audio")
    assert (found.labels, found.branch_labels) == (("bored", "happy", "tense"), LABELS)
    assert found.branches == ("wav2vec2", "spectrogram") and [*found[0].probabilities] == [*found.labels]
    for name, rows in found[0].branches.items():
        assert rows == {label: found.table[f"{name}_p_{label}"][0].as_py() for label in LABELS}
    assert found[3].branches == {"wav2vec2": {}, "spectrogram": {}}


def test_a_run_without_branches_has_none(toy_bundle: Bundle, tmp_path: Path) -> None:
    sources(tmp_path / "audio", 1)
    with ser_batch.load(toy_bundle.root) as model:
        found = model.score_files(tmp_path / "audio", branch_columns=False)
    assert found.branches == () and found[0].branches == {}
