"""A labelled corpus: which recordings there are, what they are labelled, and who speaks in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


@dataclass(frozen=True)
class Corpus:
    """Labelled recordings under one root, in a fixed order, with the label set that orders the classes."""

    name: str
    root: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise TrainingError("a label set needs at least two different labels", got=list(self.labels))
        if not self.examples:
            raise TrainingError(f"the corpus {self.name} holds no recording", got=self.root)
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

    @property
    def targets(self) -> np.ndarray:
        """Class index of every example, (N,) int64."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.array([index[e.label] for e in self.examples])

    def describe(self) -> dict[str, str | int]:
        """Name, recordings, and the SHA-256 of names, labels and sizes: what distinguishes results of two corpora."""
        lines = [f"{e.file}\t{e.label}\t{self.path(i).stat().st_size}\n" for i, e in enumerate(self.examples)]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return {"name": self.name, "recordings": len(self), "sha256": digest}

    def path(self, index: int) -> Path:
        """Absolute path of one recording."""
        return self.root / self.examples[index].file

    def check_files(self) -> None:
        """Raise TrainingError naming the first recording that is not there."""
        missing = [e.file for e in self.examples if not (self.root / e.file).is_file()]
        if missing:
            raise TrainingError(
                f"{len(missing)} of {len(self)} recordings are not under {self.root}", got=f"no {missing[0]}"
            )
