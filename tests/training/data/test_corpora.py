"""Several corpora at once: what a label means to a joined model, who is drawn how often, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_batch.errors import TrainingError
from training.data.corpora import Corpora, balanced_weights, load_corpora

CLASSES = 'classes = ["neutral", "calm", "happy"]\n'
ONE = """
[[corpus]]
name = "one"
data = "one.csv"
licence = "CC0"
role = "train"
"""
TWO = """
[[corpus]]
name = "two"
data = "lists/two.tsv"
root = "audio"
columns = { path = "id", label = "emotion", speaker = "who" }
labels = { joy = "happy", none = ["neutral", "calm"] }
licence = "CC0"
role = "train"
"""
BARE = """
[[corpus]]
name = "bare"
data = "speech"
labelled = false
licence = "CC0"
role = "train"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seconds in {
        "a.wav": 1,
        "b.wav": 1,
        "c.wav": 1,
        "audio/d.flac": 1,
        "audio/e.flac": 1,
        "speech/f.wav": 8,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.full(8_000 * seconds, 0.1), 8_000)
    (tmp_path / "one.csv").write_text("path,label,speaker\na.wav,neutral,s\nb.wav,calm,s\nc.wav,calm,t\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/two.tsv").write_text("id\temotion\twho\nd.wav\tjoy\ts\ne.wav\tnone\ts\n")
    return tmp_path


def load(folder: Path, *entries: str) -> Corpora:
    (folder / "corpora.toml").write_text(CLASSES + "".join(entries))
    return load_corpora(folder / "corpora.toml")


def test_a_label_is_a_set_of_classes_and_a_class_without_a_label_is_not_asked_for(folder: Path) -> None:
    corpora = load(folder, ONE, TWO)
    joined = corpora.join(corpora.members)
    assert [e.file for e in joined.examples] == ["one/a.wav", "one/b.wav", "one/c.wav", "two/d.flac", "two/e.flac"]
    assert joined.path(3) == folder / "audio/d.flac" and joined.path(0) == folder / "one.csv/../a.wav".replace(
        "one.csv/../", ""
    )
    neutral, calm, _, joy, either = joined.targets.tolist()
    assert (neutral, calm) == ([1, 0, -1], [0, 1, -1])  # corpus one has nobody who is happy
    assert (joy, either) == ([0, 0, 1], [1, 1, 0])
    assert len({e.speaker for e in joined.examples}) == 3  # two corpora may call different people s


def test_recordings_without_labels_become_windows_that_say_nothing(folder: Path) -> None:
    corpora = load(folder, ONE, BARE)
    bare = corpora.by_name["bare"]
    assert [e.start for e in bare.corpus.examples] == [0.0, 3.0, 6.0]
    assert corpora.join([bare]).targets.tolist() == [[-1, -1, -1]] * 3
    assert corpora.of_role("train") == [corpora.by_name["one"]]
    assert corpora.rows(corpora.members, "train") == list(range(6))


def test_neither_a_large_corpus_nor_a_frequent_label_decides(folder: Path) -> None:
    corpora = load(folder, ONE, TWO)
    joined, rows = corpora.join(corpora.members), list(range(5))
    alike = balanced_weights(joined, rows, 0.0, 0.0)
    by_corpus, by_label = Counter(), Counter()
    for row, weight in zip(rows, alike, strict=True):
        by_corpus[joined.examples[row].corpus] += weight
        by_label[joined.examples[row].label] += weight
    assert by_corpus == pytest.approx({"one": 0.5, "two": 0.5})
    assert by_label == pytest.approx({"neutral": 0.25, "calm": 0.25, "joy": 0.25, "none": 0.25})
    assert balanced_weights(joined, rows, 1.0, 1.0) == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([ONE, TWO.replace('joy = "happy", ', "")], "label 'joy' of the corpus two has no class"),
        ([ONE, TWO.replace('"happy"', '"glad"')], "label 'joy' of the corpus two has no class; got glad"),
        ([ONE, ONE], "names the corpus one twice"),
        ([ONE.replace("one.csv", "none.csv")], "corpus one: there is no"),
        ([ONE.replace('"train"', '"training"')], "role"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(entries: list[str], message: str, folder: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        load(folder, *entries)


def test_a_corpus_to_measure_on_is_not_trained_on(folder: Path) -> None:
    corpora = load(folder, ONE, TWO.replace('"train"', '"measure"'))
    assert {(e.corpus, e.part) for e in corpora.for_training(["one"]).examples} == {("one", "train"), ("two", "test")}
    with pytest.raises(TrainingError, match=r"two is not to be trained on: its role in .* is measure"):
        corpora.for_training(["one", "two"])
    with pytest.raises(TrainingError, match="no corpus three; expected one, two"):
        corpora.for_training(["three"])
