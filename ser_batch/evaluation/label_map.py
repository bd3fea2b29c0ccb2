"""From the labels that a corpus uses to those that a model knows: what common corpora mean, and what a user says.

docs/predictions.md has the same table, in the words of RAVDESS, for people; a test holds the two together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ser_batch.errors import InputError

COMMON: dict[str, tuple[str, ...]] = {
    "neutral": ("neu", "neutrality"),
    "calm": ("calmness",),
    "happy": ("hap", "happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "angry": ("ang", "anger"),
    "fearful": ("fea", "fear", "afraid", "scared"),
    "disgust": ("dis", "disgusted"),
    "surprised": ("sur", "surprise"),
}
"""Words that mean the same in every corpus, by the label of RAVDESS; they are understood without being asked for."""


@dataclass(frozen=True)
class Corpus:
    """Codes of one corpus, and its recordings' names where these say them."""

    title: str
    codes: Mapping[str, str] = field(default_factory=dict)
    """Label of the corpus -> label of RAVDESS, or a word that RAVDESS has not. Words of `COMMON` are not repeated."""
    name: re.Pattern[str] | None = None
    """The stem of a recording's name, with the label as its group 1."""

    def label(self, file: str) -> str | None:
        """The label that a recording's name says, in the words of RAVDESS or of the corpus; None: it says none."""
        match = self.name.fullmatch(PurePosixPath(file).stem) if self.name else None
        if match is None:
            return None
        code = match[1].lower()
        return self.codes.get(code, code)


CORPORA: dict[str, Corpus] = {
    "ravdess": Corpus(
        "RAVDESS (Livingstone and Russo, 2018)",
        {
            **{"01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry"},
            **{"06": "fearful", "07": "disgust", "08": "surprised"},
        },
        re.compile(r"03-01-(0[1-8])-(?:0[12]-){3}(?:0[1-9]|1\d|2[0-4])"),
    ),
    "emodb": Corpus(
        "EmoDB, Berlin (Burkhardt et al., 2005)",
        {
            **{"w": "angry", "l": "boredom", "e": "disgust", "a": "fearful", "f": "happy", "t": "sad", "n": "neutral"},
        },
        re.compile(r"\d\d[ab]\d\d([WLEAFTN])[a-z]?"),
    ),
    "crema-d": Corpus(
        "CREMA-D (Cao et al., 2014)",
        {
            **{"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "s": "sad"},
            **{"ang": "angry", "dis": "disgust", "fea": "fearful", "hap": "happy", "neu": "neutral"},
        },
        re.compile(r"\d{4}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_[A-Z]{1,2}"),
    ),
    "savee": Corpus(
        "SAVEE (Haq and Jackson, 2010)",
        {
            **{"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral"},
            **{"sa": "sad", "su": "surprised"},
        },
        re.compile(r"(?:(?:DC|JE|JK|KL)[_-])?(a|d|f|h|n|sa|su)\d\d"),
    ),
    "tess": Corpus(
        "TESS (Pichora-Fuller and Dupuis, 2020)",
        {"ps": "surprised", "pleasant surprise": "surprised", "pleasant_surprise": "surprised"},
        re.compile(r"[OY]AF?_[^_]+_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE),
    ),
    "emovo": Corpus(
        "EMOVO (Costantini et al., 2014)",
        {
            **{"dis": "disgust", "gio": "happy", "neu": "neutral", "pau": "fearful", "rab": "angry"},
            **{"sor": "surprised", "tri": "sad"},
            **{"disgusto": "disgust", "gioia": "happy", "neutrale": "neutral", "paura": "fearful", "rabbia": "angry"},
            **{"sorpresa": "surprised", "tristezza": "sad"},
        },
        re.compile(r"(?:[fm]\d_)?(dis|gio|neu|pau|rab|sor|tri)-[fm]\d-\w+"),
    ),
    "nemo": Corpus(
        "nEMO (Christop, 2024)",
        {},
        re.compile(r"\w+?_(anger|fear|happiness|neutral|sadness|surprised)_\d+"),
    ),
    "iemocap": Corpus(
        "IEMOCAP (Busso et al., 2008), excited as happy",
        {"exc": "happy", "excited": "happy", "fru": "frustrated", "oth": "other", "xxx": "no agreement"},
    ),
    "msp": Corpus(
        "MSP-Podcast and MSP-IMPROV (Lotfian and Busso, 2019)",
        {
            **{"a": "angry", "s": "sad", "h": "happy", "u": "surprised", "f": "fearful"},
            **{"d": "disgust", "n": "neutral"},
            **{"c": "contempt", "o": "other", "x": "no agreement"},
        },
    ),
    "meld": Corpus("MELD (Poria et al., 2019)", {}),
    "esd": Corpus("ESD (Zhou et al., 2021)", {}),
    "casia": Corpus(
        "CASIA (Chinese Academy of Sciences)", {}, re.compile(r"\d+-(angry|fear|happy|neutral|sad|surprise)-\w+")
    ),
    "shemo": Corpus(
        "ShEMO (Mohamad Nezami et al., 2019)",
        {"a": "angry", "f": "fearful", "h": "happy", "n": "neutral", "s": "sad", "w": "surprised"},
        re.compile(r"[FM]\d\d([AFHNSW])\d\d"),
    ),
}
"""Name -> corpus; see docs/predictions.md."""
NAMED = tuple(name for name, corpus in CORPORA.items() if corpus.name)
"""Corpora whose recordings' names say the label."""
EXPECTED = f"FROM=TO, with commas between several, or a corpus: {', '.join(CORPORA)}"


def parse_map(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Take `exc=happy,fru=,msp` apart: what was said of labels, and the corpora named. An empty TO leaves out.

    Raises:
        InputError: a part is neither.
    """
    said: dict[str, str] = {}
    corpora = []
    for part in filter(None, map(str.strip, text.split(","))):
        left, equals, right = (piece.strip() for piece in part.partition("="))
        if equals and left:
            if said.setdefault(left, right) != right:
                raise InputError(f"--map gives {left!r} two meanings", got=f"{said[left]} and {right}")
        elif part.lower() in CORPORA:
            corpora.append(part.lower())
        else:
            raise InputError(f"--map has a part that is none: {part!r}", expected=EXPECTED)
    return said, tuple(corpora)


def parse_labels(among: str | None) -> list[str] | None:
    """The labels that `--among` names; None: it is not given."""
    return None if among is None else [label.strip() for label in among.split(",")]


class LabelMap:
    """What a label means to a model.

    Looked for in this order: what the user said, the model's own labels, the codes of the corpora named, the words
    of `COMMON`; each as it is written, and then without regard to case, blanks, hyphens and underscores.

    Args:
        labels: of the model.
        said: label -> label of the model (or a word that means one), or empty: left out.
        corpora: whose codes are understood.

    Raises:
        InputError: `said` leads to what the model does not know.
    """

    def __init__(self, labels: Sequence[str], said: Mapping[str, str], corpora: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)
        own = {_forgiven(label): label for label in labels}
        # Labels that differ in case only are told apart as they are written.
        own = {key: label for key, label in own.items() if [_forgiven(each) for each in labels].count(key) == 1}
        groups = [{_forgiven(name), *map(_forgiven, words)} for name, words in COMMON.items()]
        common = {
            word: own[known[0]] for group in groups if len(known := sorted(group & set(own))) == 1 for word in group
        }
        self._known = common | own
        codes = {code: word for name in corpora for code, word in CORPORA[name].codes.items()}
        self._codes = {_forgiven(code): self._known.get(_forgiven(word), "") for code, word in codes.items()}
        self._said = {left: self._target(left, right) for left, right in said.items()}
        self._forgiven = {_forgiven(left): right for left, right in self._said.items()}
        self.read_as: Counter[tuple[str, str]] = Counter()
        """(label, what it was taken for): how often, where these differ."""

    def _target(self, left: str, right: str) -> str:
        target = right if right in self.labels else self._known.get(_forgiven(right), "")
        if right and not target:
            raise InputError(
                f"--map sends {left!r} to {right!r}, which the model does not know",
                expected=f"one of {', '.join(self.labels)}",
            )
        return target

    def merged(self) -> dict[str, str]:
        """Labels of the model itself that are sent to others: their probabilities are added to theirs."""
        return {left: right for left, right in self._said.items() if left in self.labels and right != left}

    def leaves_out(self, label: str) -> bool:
        """Whether the user said that this label counts for nothing."""
        return self._said.get(label, self._forgiven.get(_forgiven(label))) == ""

    def __call__(self, label: str) -> str | None:
        """The model's label that `label` means; None: it has none."""
        key = _forgiven(label)
        if label in self._said or label in self.labels:
            found = self._said.get(label, label)
        else:
            found = next((map_[key] for map_ in (self._forgiven, self._codes, self._known) if key in map_), "")
        found = self.merged().get(found, found)
        if found and found != label:
            self.read_as[label, found] += 1
        return found or None


def _forgiven(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
