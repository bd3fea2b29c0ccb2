"""Several corpora at once: a TOML file says where each is, what its labels mean, and what it may be used for.

    classes = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]

    [[corpus]]
    name = "nemo"
    data = "../nemo/data.tsv"            # a table, a RAVDESS folder, or, with labelled = false, a folder
    root = "../nemo/samples"             # of the table's paths; by default the table's folder
    columns = { path = "file_id", label = "emotion", speaker = "speaker_id" }
    labels = { neutral = ["neutral", "calm"], anger = "angry", fear = "fearful" }
    licence = "CC BY-NC-SA 4.0"
    role = "train"                       # train, validate (to choose by) or measure (never chosen by, never trained on)
    validation = ["MP0"]                 # speakers that validate; or protocol = "paper", that split's clips

Paths are relative to the file. A label that may mean several classes (neutral, where a corpus has no calm) names them
all; classes that no label of a corpus means are neither rewarded nor punished by its clips.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ser_batch.audio.sound import open_sound
from ser_batch.errors import SerError, TrainingError
from ser_batch.evaluation.metrics import SMALLEST
from ser_batch.recordings.find import find_recordings
from ser_batch.strict_json import decode
from training.config import read_toml
from training.data.corpus import Corpus, Example
from training.data.splits import PARTS, Split, splits_of
from training.data.table import load_corpus, load_table

Role = Literal["train", "validate", "measure"]
ROLES: dict[Role, str] = {"train": "", "validate": "validation", "measure": "test"}
"""The part that all examples of a corpus play by its role; those to train on play the part that its split says."""
WINDOW = 3.0
"""Seconds from one clip to the next within a long recording without a label."""


@dataclass(frozen=True)
class Entry:
    """One corpus as the file describes it."""

    name: str
    data: str
    licence: str
    role: Role
    root: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """What the table calls path, label and speaker."""
    labels: dict[str, Any] = field(default_factory=dict)
    """The table's label → the class or classes that it may mean; those it does not name mean themselves."""
    labelled: bool = True
    """False: `data` is a folder of recordings without labels, to distil from."""
    protocol: Literal["paper", "emobox", "sentence", "given"] | None = None
    fold: int = 0
    seed: int = 0
    validation: tuple[str, ...] = ()
    """Without a protocol: the speakers that validate."""


@dataclass(frozen=True)
class CorporaFile:
    """The whole file."""

    classes: tuple[str, ...]
    corpus: tuple[Entry, ...]


@dataclass(frozen=True)
class Member:
    """One corpus of several."""

    entry: Entry
    corpus: Corpus
    meanings: dict[str, tuple[str, ...]]
    """Each label that occurs → the classes that it may mean; none where the recordings have no labels."""
    split: Split | None
    """What the entry's protocol keeps out of training."""

    @property
    def name(self) -> str:
        """Of the corpus in this file."""
        return self.entry.name

    def rows(self, *parts: str) -> list[int]:
        """Indices of the examples in these parts; all where there is no split, which leaves nothing out."""
        if self.split is None:
            return list(range(len(self.corpus))) if "train" in parts else []
        return sorted(i for part in parts for i in getattr(self.split, part))


@dataclass(frozen=True)
class Corpora:
    """The corpora of one file."""

    path: Path
    classes: tuple[str, ...]
    members: tuple[Member, ...]

    @cached_property
    def by_name(self) -> dict[str, Member]:
        """Name → corpus."""
        return {member.name: member for member in self.members}

    def of_role(self, *roles: Role, labelled: bool = True) -> list[Member]:
        """The members with one of these roles; those without labels only if asked for."""
        return [m for m in self.members if m.entry.role in roles and (m.meanings or not labelled)]

    def join(self, members: Sequence[Member]) -> Corpus:
        """One corpus of several: files and speakers are named <corpus>/<name>, labels are sets of classes."""
        examples = tuple(
            replace(
                example,
                file=f"{member.name}/{example.file}",
                speaker=f"{member.name}/{example.speaker}" if example.speaker is not None else None,
                corpus=member.name,
            )
            for member in members
            for example in member.corpus.examples
        )
        return Corpus(
            name="+".join(member.name for member in members),
            root=self.path.parent,
            labels=self.classes,
            examples=examples,
            roots={member.name: member.corpus.root for member in members},
            sets={member.name: member.meanings for member in members},
            licences={member.name: member.entry.licence for member in members},
        )

    def for_training(self, train_on: Sequence[str] = ()) -> Corpus:
        """The labelled corpora joined, each example with the part that it plays.

        Corpora to train on, or of them those named by `train_on`, are trained on but for what their protocol keeps
        out; those to choose by validate; all others are tested.

        Raises TrainingError for a name that is unknown, or of a corpus that is not to be trained on.
        """
        for name in train_on:
            if name not in self.by_name:
                raise TrainingError(f"{self.path} has no corpus {name}", expected=", ".join(self.by_name))
            if (of := self.by_name[name].entry.role) != "train":
                raise TrainingError(
                    f"the corpus {name} is not to be trained on: its role in {self.path} is {of}",
                    remedy='Leave it out, or set role = "train" if its licence allows that.',
                )
        members = self.of_role("train", "validate", "measure")
        joined = self.join(members)
        parts = [""] * len(joined)
        for part in PARTS:
            for i in self.rows(members, part):
                parts[i] = part
        role = {m.name: ROLES[m.entry.role] for m in members}
        role |= {m.name: "test" for m in self.of_role("train") if train_on and m.name not in train_on}
        examples = tuple(
            replace(e, part=role[str(e.corpus)] or part) for e, part in zip(joined.examples, parts, strict=True)
        )
        return replace(joined, examples=examples)

    def rows(self, members: Sequence[Member], *parts: str) -> list[int]:
        """Indices, into what `join` makes of the members, of their examples in these parts."""
        starts = np.cumsum([0, *(len(member.corpus) for member in members)])
        return [int(start) + i for start, m in zip(starts, members, strict=False) for i in m.rows(*parts)]


def load_corpora(path: Path) -> Corpora:
    """The corpora that a TOML file names.

    Raises:
        TrainingError: the file or a corpus cannot be read, a name is given twice, or a label has no class.
    """
    if not path.is_file():
        raise TrainingError(f"there is no corpora file {path}", expected="a .toml file (training.data.corpora)")
    described = decode(CorporaFile, read_toml(path), str(path), TrainingError)
    names = [entry.name for entry in described.corpus]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise TrainingError(f"{path} names the corpus {repeated[0]} twice")
    return Corpora(path, described.classes, tuple(_member(path, described.classes, e) for e in described.corpus))


def by_corpus(
    corpus: Corpus, rows: Sequence[int], probabilities: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """What a joined model says in the words of each corpus that has labels.

    Args:
        rows: n examples of the joined corpus.
        probabilities: (n, classes) of them.

    Returns:
        Name → truth (m,), probabilities (m, labels) of the labels that the corpus has, of sum 1, and those labels.
    """
    index = {label: i for i, label in enumerate(corpus.labels)}
    found = {}
    for name, meanings in corpus.sets.items():
        places = [place for place, i in enumerate(rows) if corpus.examples[i].corpus == name]
        if not meanings or not places:
            continue
        labels = tuple(meanings)
        sums = [probabilities[places][:, [index[c] for c in meanings[label]]].sum(axis=1) for label in labels]
        own = np.maximum(np.stack(sums, axis=1), SMALLEST)  # however sure of a class that the corpus lacks
        truth = np.array([labels.index(corpus.examples[rows[place]].label) for place in places])
        found[name] = truth, own / own.sum(axis=1, keepdims=True), labels
    return found


def balanced_weights(corpus: Corpus, rows: Sequence[int], corpus_power: float, label_power: float) -> np.ndarray:
    """How often each of the examples `rows` is to be drawn, (n,) float64, of sum 1.

    A corpus of n clips is drawn in proportion to n ** corpus_power, a label within it to its clips ** label_power:
    1 draws every clip alike, 0 every corpus, or every label of a corpus, alike.
    """
    examples = [corpus.examples[i] for i in rows]
    clips = Counter(e.corpus for e in examples)
    labelled = Counter((e.corpus, e.label) for e in examples)
    shares: dict[str | None, float] = {}
    for (name, _), number in labelled.items():
        shares[name] = shares.get(name, 0.0) + number**label_power
    weights = np.array(
        [
            clips[e.corpus] ** corpus_power * labelled[e.corpus, e.label] ** (label_power - 1) / shares[e.corpus]
            for e in examples
        ]
    )
    return weights / weights.sum()


def _member(path: Path, classes: tuple[str, ...], entry: Entry) -> Member:
    data = path.parent / entry.data
    try:
        if not entry.labelled:
            return Member(entry, _windows(entry.name, data, classes), {}, None)
        root = path.parent / entry.root if entry.root else None
        corpus = load_table(data, root=root, columns=entry.columns) if data.is_file() else load_corpus(data)
    except SerError as error:
        raise TrainingError(
            f"corpus {entry.name}: {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    meanings = {label: _meaning(label, entry, classes, path) for label in corpus.labels}
    return Member(entry, corpus, meanings, _split(entry, corpus))


def _split(entry: Entry, corpus: Corpus) -> Split | None:
    if entry.protocol:
        return splits_of(entry.protocol, corpus, entry.seed)[entry.fold]
    if not entry.validation:
        return None
    unknown = sorted(set(entry.validation) - {str(e.speaker) for e in corpus.examples})
    if unknown:
        raise TrainingError(
            f"corpus {entry.name} has no speaker {unknown[0]} to validate",
            expected=", ".join(sorted({str(e.speaker) for e in corpus.examples})),
        )
    held_out = [i for i, e in enumerate(corpus.examples) if e.speaker in entry.validation]
    rest = [i for i, e in enumerate(corpus.examples) if e.speaker not in entry.validation]
    return Split("speakers", train=tuple(rest), validation=tuple(held_out), test=())


def _meaning(label: str, entry: Entry, classes: tuple[str, ...], path: Path) -> tuple[str, ...]:
    named = entry.labels.get(label, label)
    found = tuple(named) if isinstance(named, list) else (named,)
    unknown = [str(name) for name in found if name not in classes]
    if not found or unknown:
        raise TrainingError(
            f"the label {label!r} of the corpus {entry.name} has no class",
            got=f"{', '.join(unknown) or 'nothing'}",
            expected=f"one or more of {', '.join(classes)}",
            remedy=f"Say in {path} what it means: labels = {{ {label} = … }}.",
        )
    return found


def _windows(name: str, folder: Path, classes: tuple[str, ...]) -> Corpus:
    """The recordings of a folder, each cut into clips of WINDOW seconds, none of them labelled."""
    examples = []
    for recording in find_recordings([str(folder)]):
        with open_sound(recording.path) as sound:
            seconds = (sound.frames or sound.length()) / sound.rate
        windows = max(1, math.floor(seconds / WINDOW + 0.5))
        examples += [Example(recording.name, "", start=number * WINDOW) for number in range(windows)]
    return Corpus(name, folder, classes, tuple(examples), sets={name: {}})
