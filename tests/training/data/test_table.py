"""Labelled tables: what they say is what is trained on, and what is wrong with them is named."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.errors import TrainingError
from training.data.corpus import Example
from training.data.splits import splits_of
from training.data.table import load_corpus, load_table, own_protocol, states_split

ROWS = """path,label,speaker,split,sentence,utterance,note
a/1.wav,joy,ann,train,s1,u1,x
a/2.wav,fear,ann,train,s1,u2,
b/1.wav,joy,ben,validation,s2,u3,
b/2.wav,fear,ben,validation,,u4,
"c, d.wav",fear,cat,test,s1,,
d.wav,joy,cat,test,s1,,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav", "c, d.wav", "d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, text: str = ROWS, name: str = "corpus.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_csv_is_read_in_its_own_order(folder: Path) -> None:
    corpus = load_table(written(folder))
    assert (corpus.name, corpus.root, corpus.labels) == ("corpus", folder, ("fear", "joy"))
    assert corpus.examples[0] == Example("a/1.wav", "joy", "ann", "s1", "u1", "train")
    assert corpus.examples[3].sentence is None and corpus.examples[4].utterance is None
    assert corpus.examples[4].file == "c, d.wav"
    assert corpus.targets.tolist() == [1, 0, 1, 0, 0, 1]
    assert corpus.path(0) == folder / "a/1.wav"


def test_parquet_says_the_same(folder: Path) -> None:
    lines = load_table(written(folder)).examples
    columns = {
        "path": [e.file for e in lines],
        "label": [e.label for e in lines],
        "speaker": [e.speaker for e in lines],
        "split": [e.part for e in lines],
        "sentence": [e.sentence for e in lines],
        "utterance": [e.utterance for e in lines],
    }
    pq.write_table(pa.table(columns), folder / "corpus.parquet")
    assert load_table(folder / "corpus.parquet") == load_table(written(folder))


def test_path_and_label_are_enough(folder: Path) -> None:
    corpus = load_table(written(folder, f"label,path\njoy,{folder}/d.wav\nfear,a/../a/1.wav\n"))
    assert corpus.examples == (Example(f"{folder}/d.wav", "joy"), Example("a/../a/1.wav", "fear"))
    assert corpus.path(0) == folder / "d.wav" and not states_split(corpus)


def test_labels_set_the_order_of_the_classes(folder: Path) -> None:
    corpus = load_corpus(written(folder), ("joy", "fear"))
    assert corpus.labels == ("joy", "fear") and corpus.targets.tolist() == [0, 1, 0, 1, 1, 0]


def test_a_given_split_is_kept(folder: Path) -> None:
    corpus = load_table(written(folder))
    assert states_split(corpus)
    (split,) = splits_of("given", corpus)
    assert (split.train, split.validation, split.test) == ((0, 1), (2, 3), (4, 5))


def test_a_byte_order_mark_is_no_part_of_a_column(folder: Path) -> None:
    assert load_table(written(folder, "\ufeff" + ROWS)) == load_table(written(folder))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("a/2.wav", "a/3.wav", "a/3.wav"),
        ("a/2.wav", "a/../a/1.wav", "rows 1 and 2"),
        ("b/1.wav,joy", "b/1.wav,", "row 3 .* has no label"),
        ("d.wav,joy,cat", ",joy,cat", "row 6 .* has no path"),
        ("ben,validation", "ben,dev", "split of row 3 .*'dev'"),
        ("ben,validation,s2", "ben,,s2", "row 3 .* has no split"),
        ("s2,u3,", "s2,u3,,,x", "row 3 .* has 9 cells"),
        ("path,label", "where,label", "no column path"),
        ("path,label", "path,feeling", "no column label"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        load_table(written(folder, ROWS.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("joy", "anger"), "'fear' of a/2.wav is not in the label set"),
        (("joy", "fear", "anger"), "no recording is labelled anger"),
        (("joy", "fear", "joy"), "different labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder: Path, labels: tuple[str, ...], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        load_table(written(folder), labels)


def test_a_speaker_in_two_parts_is_refused(folder: Path) -> None:
    corpus = load_table(written(folder, ROWS.replace("cat,test", "ann,test", 1)))
    with pytest.raises(TrainingError, match="speaker ann is in the train part and in the test part"):
        splits_of("given", corpus)


def test_a_class_without_a_clip_in_a_part_is_refused(folder: Path) -> None:
    corpus = load_table(written(folder, ROWS.replace("d.wav,joy,cat,test", "d.wav,joy,ann,train")))
    with pytest.raises(TrainingError, match="no clip labelled joy in its test part"):
        splits_of("given", corpus)


def test_a_sentence_that_is_not_known_cannot_be_held_out(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"none of b/2\.wav"):
        splits_of("sentence", load_table(written(folder)))


@pytest.mark.parametrize("name", ["missing.csv", "corpus.wav", "a"])
def test_what_is_no_table_is_refused(folder: Path, name: str) -> None:
    written(folder, name="corpus.wav")
    with pytest.raises(TrainingError, match=name):
        load_table(folder / name)


def test_a_table_is_read_as_a_run_reads_it(folder: Path) -> None:
    """UTF-16, columns with other names, in a file with another ending."""
    expected = load_table(written(folder)).examples
    text = ROWS.replace("path,label", "File_Name,Label")
    (folder / "other.txt").write_bytes(text.encode("utf-16"))
    assert load_table(folder / "other.txt").examples == expected


def test_what_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "x.parquet").write_bytes(b"PAR1 no")
    (folder / "x.jsonl").write_bytes(b"path,label\n")
    for name in ("x.parquet", "x.jsonl"):
        with pytest.raises(TrainingError, match="cannot be read"):
            load_table(folder / name)


def test_data_is_a_folder_or_a_table(folder: Path) -> None:
    for data, named in ((folder / "nothing", "there is no"), (folder, "not the whole speech subset")):
        with pytest.raises(TrainingError, match=named):
            load_corpus(data)
    with pytest.raises(TrainingError, match="RAVDESS has its own"):
        load_corpus(folder, ("a", "b"))


def test_a_table_s_speakers_are_kept_apart_unless_it_states_a_split(folder: Path) -> None:
    assert own_protocol(load_table(written(folder))) == "given"
    without = re.sub(",(train|validation|test),", ",,", ROWS)
    assert own_protocol(load_table(written(folder, without))) == "speakers"
    assert own_protocol(load_table(written(folder, f"label,path\njoy,{folder}/d.wav\nfear,a/1.wav\n"))) is None
