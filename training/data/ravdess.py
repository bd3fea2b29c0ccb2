"""RAVDESS as a corpus: the 1,440 speech clips, described by their file names alone (ser_batch.evaluation.ravdess)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ser_batch.errors import TrainingError
from ser_batch.evaluation import ravdess
from ser_batch.evaluation.ravdess import LABELS
from training.data.corpus import Corpus, Example

NAME = "ravdess"
"""Of the corpus, in results and bundles."""
SPEECH_CLIPS = 1440


def parse(file: str) -> Example:
    """The example that a speech clip's name describes; InputError for any other name."""
    clip = ravdess.parse(file)
    emotion = LABELS.index(clip.label) + 1
    return Example(
        file=file,
        label=clip.label,
        speaker=str(int(clip.actor)),
        sentence=clip.statement,
        utterance=f"{clip.actor}-{clip.statement}-{emotion:02}-{clip.intensity}",
    )


def from_files(files: Iterable[str], root: Path) -> Corpus:
    """The corpus of these relative paths, sorted by file name, so that no split depends on the machine.

    Raises TrainingError where a clip is there twice: its copies could end up in training and in test.
    """
    examples = sorted((parse(f) for f in files), key=lambda e: PurePosixPath(e.file).stem)
    for first, second in pairwise(examples):
        if PurePosixPath(first.file).stem == PurePosixPath(second.file).stem:
            raise TrainingError(f"the clip {first.file} is there twice", got=f"also {second.file}")
    return Corpus(name=NAME, root=root, labels=LABELS, examples=tuple(examples))


def load(root: Path) -> Corpus:
    """All speech clips under `root`; TrainingError unless they are exactly the 1,440 published ones."""
    files = [p.relative_to(root).as_posix() for p in root.rglob("03-01-*") if p.suffix in (".flac", ".wav")]
    if len(files) != SPEECH_CLIPS:
        raise TrainingError(
            f"{root} is not the whole speech subset of RAVDESS", got=f"{len(files)} clips", expected=SPEECH_CLIPS
        )
    return from_files(files, root)
