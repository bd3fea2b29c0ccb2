"""What the labels of common corpora mean, in the words of RAVDESS; and how their recordings' names say them.

docs/predictions.md has the same table for people; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

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
