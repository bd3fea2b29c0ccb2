"""The protocols on the 1,440 official names of RAVDESS: Table I, the six folds, the held-out sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.toy_corpus import official_names

pytest.importorskip("torch")

from ser_batch.errors import SerError, TrainingError
from training.data import ravdess as ravdess_corpus
from training.data.corpus import Corpus, Example
from training.data.splits import (
    EMOBOX_TEST_ACTORS,
    PARTS,
    Split,
    emobox_split,
    given_split,
    other_take_share,
    paper_split,
    sentence_split,
    speaker_split,
    splits_of,
)

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return ravdess_corpus.from_files(official_names(), Path("nowhere"))


def files(corpus: Corpus, split: Split, part: str) -> list[str]:
    return [corpus.examples[i].file for i in getattr(split, part)]


def speakers(corpus: Corpus, split: Split, part: str) -> set[str | None]:
    return {corpus.examples[i].speaker for i in getattr(split, part)}


def tiny(rows: list[tuple[str, str, str | None, str | None]], sentence: str | None = None) -> Corpus:
    """A corpus of (file, label, speaker, part) with labels a and b."""
    examples = tuple(Example(f, label, speaker, sentence, None, part) for f, label, speaker, part in rows)
    return Corpus("tiny", Path("nowhere"), ("a", "b"), examples)


def test_names_are_read_by_their_codes(corpus: Corpus) -> None:
    assert len(corpus) == 1440 and corpus.labels == EMOTIONS
    example = ravdess_corpus.parse("Actor_12/03-01-06-01-02-01-12.wav")
    assert (example.label, example.speaker, example.sentence) == ("fearful", "12", "02")
    assert example.utterance == ravdess_corpus.parse("03-01-06-01-02-02-12.wav").utterance  # its other take
    counts = Counter(e.label for e in corpus.examples)
    assert counts == {label: 96 if label == "neutral" else 192 for label in EMOTIONS}


@pytest.mark.parametrize(
    "name",
    [
        "03-01-09-01-01-01-01.wav",  # no such emotion
        "03-01-01-01-01-01-25.wav",  # no such actor
        "03-02-01-01-01-01-01.wav",  # song
        "01-01-01-01-01-01-01.mp4",  # video
        "03-01-01-01-01-01.wav",
        "speech.wav",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SerError, match=name.split(".")[0]):
        ravdess_corpus.parse(name)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_table_1(corpus: Corpus, seed: int) -> None:
    split = paper_split(corpus, seed)
    assert [len(getattr(split, part)) for part in PARTS] == [1147, 143, 150]
    expected = {"train": (153, 76), "validation": (19, 10), "test": (20, 10)}
    for part, (seven, neutral) in expected.items():
        counts = Counter(corpus.examples[i].label for i in getattr(split, part))
        assert counts == {label: neutral if label == "neutral" else seven for label in EMOTIONS}, part


def test_the_paper_split_is_the_seeds_alone(corpus: Corpus) -> None:
    shuffled = list(np.random.default_rng(0).permutation(official_names()))
    elsewhere = ravdess_corpus.from_files([f"deep/er/{Path(f).name}" for f in shuffled], Path("other"))
    for part in PARTS:
        first, again = paper_split(corpus, 3), paper_split(corpus, 3)
        assert getattr(first, part) == getattr(again, part)
        names = [Path(f).name for f in files(corpus, first, part)]
        assert names == [Path(f).name for f in files(elsewhere, paper_split(elsewhere, 3), part)]
    assert paper_split(corpus, 3).test != paper_split(corpus, 4).test


def test_most_test_clips_of_the_paper_have_their_other_take_in_training(corpus: Corpus) -> None:
    shares = [other_take_share(corpus, paper_split(corpus, seed)) for seed in range(5)]
    assert all(0.6 < share < 0.9 for share in shares)  # 0.8 less the takes in the other parts
    assert all(other_take_share(corpus, emobox_split(corpus, fold)) == 0 for fold in range(1, 7))
    fitted = ("train", "validation")  # what `refit` trains on
    assert all(other_take_share(corpus, paper_split(corpus, seed), fitted) > shares[seed] for seed in range(5))
    assert all(other_take_share(corpus, emobox_split(corpus, fold), fitted) == 0 for fold in range(1, 7))


@pytest.mark.parametrize("fold", range(1, 7))
def test_emobox_folds_keep_speakers_apart(corpus: Corpus, fold: int) -> None:
    split = emobox_split(corpus, fold)
    parts = [speakers(corpus, split, part) for part in PARTS]
    assert parts[2] == {str(actor) for actor in EMOBOX_TEST_ACTORS[fold - 1]}
    assert [len(p) for p in parts] == [16, 4, 4] and len(set.union(*parts)) == 24
    assert [len(getattr(split, part)) for part in PARTS] == [960, 240, 240]
    assert emobox_split(corpus, fold) == split
    assert emobox_split(corpus, fold, seed=1).test == split.test


def test_emobox_tests_every_clip_once(corpus: Corpus) -> None:
    tested = [i for split in splits_of("emobox", corpus) for i in split.test]
    assert sorted(tested) == list(range(1440))


def test_no_such_fold(corpus: Corpus) -> None:
    for fold in (0, 7):
        with pytest.raises(TrainingError, match="fold"):
            emobox_split(corpus, fold)


def test_emobox_refuses_another_corpus() -> None:
    other = tiny([(f"{i}.wav", "ab"[i % 2], f"speaker {i}", None) for i in range(8)])
    with pytest.raises(TrainingError, match="actor"):
        emobox_split(other, 1)


@pytest.mark.parametrize("sentence", ["01", "02"])
def test_sentence_open(corpus: Corpus, sentence: str) -> None:
    split = sentence_split(corpus, sentence)
    heard = {part: {corpus.examples[i].sentence for i in getattr(split, part)} for part in PARTS}
    other = {"01": "02", "02": "01"}[sentence]
    assert heard == {"train": {other}, "validation": {other}, "test": {sentence}}
    assert len(split.test) == 720 and len(split.validation) == 7 * 9 + 4
    assert sentence_split(corpus, sentence) == split


def test_an_unknown_sentence_is_refused(corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match="03"):
        sentence_split(corpus, "03")


def test_splits_of_every_protocol(corpus: Corpus) -> None:
    assert {p: len(splits_of(p, corpus)) for p in ("paper", "emobox", "sentence")} == {
        "paper": 1,
        "emobox": 6,
        "sentence": 2,
    }
    with pytest.raises(TrainingError, match="leave-one-out"):
        splits_of("leave-one-out", corpus)


ROWS = [(f"{part}-{label}.wav", label, part, part) for part in PARTS for label in "ab"]


def test_a_given_split_is_taken_as_it_is() -> None:
    split = given_split(tiny(ROWS))
    assert (split.train, split.validation, split.test) == ((0, 1), (2, 3), (4, 5))


def spoil(rows: list, index: int, **changes: str | None) -> list:
    names = ("file", "label", "speaker", "part")
    row = tuple(changes.get(name, value) for name, value in zip(names, rows[index], strict=True))
    return [*rows[:index], row, *rows[index + 1 :]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (spoil(ROWS, 4, speaker="train"), "speaker train is in the train part and in the test part"),
        (spoil(spoil(ROWS, 4, speaker="train"), 2, speaker=None), "speaker train"),
        (spoil(ROWS, 2, part="dev"), "dev"),
        (spoil(ROWS, 2, part=None), "None"),
        (spoil(ROWS, 3, label="a"), "labelled b in its validation part"),
    ],
)
def test_a_wrong_given_split_is_refused_by_name(rows: list, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        given_split(tiny(rows))


def test_unknown_speakers_are_nobodys_in_particular() -> None:
    assert given_split(tiny([(f, label, None, part) for f, label, _, part in ROWS])).test == (4, 5)


@pytest.mark.parametrize(
    "split",
    [Split("s", (0, 1), (2, 3), (4,)), Split("s", (0, 1), (2, 3), (3, 4, 5)), Split("s", (0, 1), (2, 3), (4, 6))],
)
def test_a_split_that_loses_or_repeats_a_clip_is_refused(split: Split) -> None:
    with pytest.raises(TrainingError, match="exactly once"):
        split.check(tiny(ROWS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny([("x.wav", "c", None, None)]), "'c' of x.wav"),
        (lambda: tiny([("x.wav", "a", None, None)]), "labelled b"),
        (lambda: tiny([]), "no recording"),
        (lambda: Corpus("one", Path(), ("a",), (Example("x", "a"),)), "two different labels"),
        (lambda: paper_split(tiny([(f"{i}", "ab"[i % 2], None, None) for i in range(4)])), "validation"),
    ],
)
def test_a_corpus_that_cannot_be_trained_on_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make()


def test_missing_recordings_are_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1440 of 1440 .*03-01-01-01-01-01-01"):
        corpus.check_files()
    with pytest.raises(TrainingError, match="0 clips"):
        ravdess_corpus.load(tmp_path)
    with pytest.raises(TrainingError, match=r"03-01-01-01-01-01-01.* twice"):
        ravdess_corpus.from_files([*official_names(), "copy/03-01-01-01-01-01-01.wav"], tmp_path)


@pytest.mark.shared
def test_the_shared_recordings_are_the_official_names(ravdess: Path) -> None:
    found = ravdess_corpus.load(ravdess)
    assert [Path(e.file).stem for e in found.examples] == sorted(Path(f).stem for f in official_names())
    found.check_files()


def test_speakers_are_kept_apart(corpus: Corpus) -> None:
    (split,) = splits_of("speakers", corpus, seed=3)
    parts = {part: speakers(corpus, split, part) for part in PARTS}
    assert [len(parts[part]) for part in PARTS] == [20, 2, 2] and len(set().union(*parts.values())) == 24
    assert speaker_split(corpus, 3) == split != speaker_split(corpus, 4)


def test_a_split_by_speakers_has_every_label_in_every_part() -> None:
    rows = [(f"{who}{label}.wav", label, who, None) for who in "vwxyz" for label in "ab"]
    lame = tiny([row for row in rows if row[0] not in ("va.wav", "wb.wav", "xa.wav")])
    for seed in range(10):
        split = speaker_split(lame, seed)
        assert all({lame.examples[i].label for i in getattr(split, part)} == {"a", "b"} for part in PARTS)
    with pytest.raises(TrainingError, match="keeps the speakers apart"):
        speaker_split(tiny(rows[:4]))
    with pytest.raises(TrainingError, match="none of q"):
        speaker_split(tiny([*rows, ("q", "a", None, None)]))
