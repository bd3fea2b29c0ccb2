"""A labelled corpus: which recordings there are, what they are labelled, and who speaks in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.clips import ClipRule, Waveform, fit
from ser_batch.errors import TrainingError


@dataclass(frozen=True)
class Example:
    """One labelled recording."""

    file: str
    """Path relative to the corpus root: the recording's name in splits, predictions and tables."""
    label: str
    speaker: str | None = None
    sentence: str | None = None
    utterance: str | None = None
    """What two takes of the same thing share (speaker, sentence, emotion, intensity); None if unknown."""
    part: str | None = None
    """"train", "validation" or "test" where the corpus itself fixes the split."""
    start: float | None = None
    """Seconds at which the clip begins; None where the clip rule says."""
    corpus: str | None = None
    """Name of the corpus it comes from, where several are joined."""


@dataclass(frozen=True)
class Corpus:
    """Labelled recordings under one root, in a fixed order, with the label set that orders the classes.

    Several corpora joined (training.data.corpora) are one, too: each has a root of its own, and its labels stand for
    sets of classes.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    roots: Mapping[str, Path] = field(default_factory=dict)
    """Of joined corpora: the name of each → its root; an example's file begins with that name."""
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Of joined corpora: the name of each → each label that it has → the classes that this label may mean."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Of joined corpora: the name of each → its terms."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise TrainingError("a label set needs at least two different labels", got=list(self.labels))
        if not self.examples:
            raise TrainingError(f"the corpus {self.name} holds no recording", got=self.root)
        if not self.sets:
            self._check_labels()

    def _check_labels(self) -> None:
        unknown = sorted({e.label for e in self.examples} - set(self.labels))
        if unknown:
            first = next(e for e in self.examples if e.label in unknown)
            raise TrainingError(
                f"label {first.label!r} of {first.file} is not in the label set",
                expected=f"one of {', '.join(self.labels)}",
            )
        missing = sorted(set(self.labels) - {e.label for e in self.examples})
        if missing:
            raise TrainingError(
                f"no recording is labelled {', '.join(missing)}",
                remedy="Take the label out of the label set.",
            )

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def targets(self) -> np.ndarray:
        """Class index of every example, (N,) int64.

        Of joined corpora, (N, classes) int8 instead: 1 for the classes that the label may mean, 0 for those that it
        denies, -1 for those that its corpus has no label for, which the example says nothing about.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        if not self.sets:
            return np.array([index[e.label] for e in self.examples])
        rows: dict[tuple[str | None, str], np.ndarray] = {(None, ""): np.full(len(self.labels), -1, np.int8)}
        for corpus, meanings in self.sets.items():
            rows[corpus, ""] = rows[None, ""]
            known = [index[name] for names in meanings.values() for name in names]
            for label, names in meanings.items():
                row = rows[corpus, label] = rows[None, ""].copy()
                row[known] = 0
                row[[index[name] for name in names]] = 1
        return np.stack([rows[e.corpus, e.label] for e in self.examples])

    def describe(self) -> dict[str, str | int]:
        """Name, recordings, and the SHA-256 of names, labels and sizes: what distinguishes results of two corpora."""
        lines = [f"{e.file}\t{e.label}\t{self.path(i).stat().st_size}\n" for i, e in enumerate(self.examples)]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return {"name": self.name, "recordings": len(self), "sha256": digest}

    def path(self, index: int) -> Path:
        """Absolute path of one recording."""
        example = self.examples[index]
        if example.corpus in self.roots:
            return self.roots[example.corpus] / example.file.removeprefix(f"{example.corpus}/")
        return self.root / example.file

    def recording(self, index: int, rate: int) -> Waveform:
        """One recording (n,) from where its example begins, mono at `rate` Hz; AudioError if it cannot be read."""
        whole, start = read_recording(self.path(index), rate), self.examples[index].start
        return whole if start is None else whole[round(start * rate) :]

    def clip(self, index: int, rule: ClipRule) -> Waveform:
        """One example's clip (rule.samples,), exactly as it is served; AudioError if it cannot be read."""
        if self.examples[index].start is None:
            return read_clip(self.path(index), rule).waveform
        return fit(self.recording(index, rule.sample_rate), rule.samples)

    def check_files(self) -> None:
        """Raise TrainingError naming the first recording that is not there."""
        missing = [e.file for i, e in enumerate(self.examples) if not self.path(i).is_file()]
        if missing:
            raise TrainingError(
                f"{len(missing)} of {len(self)} recordings are not under {self.root}", got=f"no {missing[0]}"
            )
