"""Labels of corpora in the words of a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import COMMON, CORPORA, NAMED, LabelMap, parse_map
from support.toy import LABELS

PAGE = Path(__file__).parents[3] / "docs" / "predictions.md"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("angry", "angry"), ("Anger", "angry"), (" ANG ", "angry"), ("happiness", "happy"), ("joy", "happy"),
        ("fear", "fearful"), ("surprise", "surprised"), ("boredom", None), ("exc", None), ("W", None), ("", None),
    ],
)  # fmt: skip
def test_words_that_all_corpora_share(label: str, expected: str | None) -> None:
    assert LabelMap(LABELS, {})(label) == expected


def test_the_order_in_which_a_meaning_is_looked_for() -> None:
    meaning = LabelMap(("sad", "Sad", "f", "other one"), {"x": "sad", "f": "Sad"}, ["emodb"])
    assert [meaning(label) for label in ("sad", "Sad", "SAD", "f", "F", "X", "T", "Other-One")] == [
        "sad", "Sad", None, "Sad", "Sad", "sad", None, "other one",
    ]  # fmt: skip


def test_a_model_with_other_words() -> None:
    meaning = LabelMap(("ang", "hap", "boredom"), {}, ["emodb"])
    assert [meaning(label) for label in ("angry", "W", "joy", "F", "L", "sad")] == [
        "ang", "ang", "hap", "hap", "boredom", None,
    ]  # fmt: skip
    assert meaning.read_as["W", "ang"] == 1


def test_what_is_merged_away_is_no_answer_in_any_word() -> None:
    meaning = LabelMap(LABELS, {"calm": "neutral", "sad": ""})
    assert meaning.merged() == {"calm": "neutral", "sad": ""}
    assert [meaning(label) for label in ("calm", "calmness", "sadness", "neutral")] == ["neutral"] * 2 + [
        None,
        "neutral",
    ]


def test_maps_are_taken_apart() -> None:
    assert parse_map("exc = happy, fru=,MSP") == ({"exc": "happy", "fru": ""}, ("msp",))
    for wrong in ("exc", "=happy", "a=b,a=c"):
        with pytest.raises(InputError, match="--map"):
            parse_map(wrong)


@pytest.mark.parametrize(
    ("corpus", "file", "label"),
    [
        ("ravdess", "a/03-01-08-02-01-01-24.wav", "surprised"), ("emodb", "wav/03a01Fa.wav", "happy"),
        ("emodb", "16b10Lb.wav", "boredom"), ("crema-d", "1001_DFA_ANG_XX.flac", "angry"),
        ("savee", "DC_sa01.opus", "sad"), ("savee", "JE/su12.wav", "surprised"), ("savee", "KL_a03.wav", "angry"),
        ("tess", "OAF_back_ps.wav", "surprised"), ("tess", "YAF_home_Fear.wav", "fear"),
        ("emovo", "f1_dis-f1-b1.opus", "disgust"), ("emovo", "gio-m2-n4.wav", "happy"),
        ("nemo", "EB0_anger_1.opus", "anger"), ("casia", "201-fear-liuchanhg.opus", "fear"),
        ("shemo", "F01W03.wav", "surprised"), ("emodb", "call.wav", None), ("msp", "MSP-PODCAST_0001_0008.wav", None),
    ],
)  # fmt: skip
def test_names_that_say_the_label(corpus: str, file: str, label: str | None) -> None:
    assert CORPORA[corpus].label(file) == label


def test_codes_mean_labels_of_ravdess_or_none_of_its_words() -> None:
    words = {word for words in COMMON.values() for word in words} | set(LABELS)
    assert set(COMMON) == set(LABELS)
    for corpus in CORPORA.values():
        for code, meaning in corpus.codes.items():
            assert code == code.lower() and (meaning in LABELS or meaning not in words)


def test_the_page_has_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    page = {name: (title, codes, says) for name, title, codes, says in rows if name in CORPORA}
    assert list(page) == list(CORPORA)
    for name, (title, codes, says) in page.items():
        assert title == CORPORA[name].title
        found = dict(pair.split(" ") for pair in re.findall(r"`(.+?)`", codes.replace("_", "-")) if " " in pair)
        expected = {code.replace("_", "-"): word for code, word in CORPORA[name].codes.items()}
        assert found == {code.replace(" ", "-"): word.replace(" ", "-") for code, word in expected.items()}, name
        assert (says == "yes") == (name in NAMED)


@pytest.mark.shared
def test_names_of_corpora_at_hand_say_what_their_tables_say(ravdess: Path) -> None:
    import csv

    corpora = ravdess.parent / "corpora"
    for corpus in ("savee", "emovo", "casia"):
        meaning = LabelMap(LABELS, {}, [corpus])
        with (corpora / corpus / "clips.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 400
        said = [CORPORA[corpus].label(row["path"]) for row in rows]
        assert [meaning(label or "") for label in said] == [row["label"] for row in rows]
