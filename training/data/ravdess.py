"""RAVDESS as a corpus: the 1,440 speech clips, described by their file names alone.

Names are `modality-channel-emotion-intensity-statement-repetition-actor`; see Livingstone and Russo, PLOS ONE
13(5): e0196391, 2018, doi 10.1371/journal.pone.0196391.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ser_batch.errors import InputError, TrainingError
from training.data.corpus import Corpus, Example

NAME = "ravdess"
"""Of the corpus, in results and bundles."""
LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""Emotions in the order of their codes 01 … 08: the default label order of the whole toolkit."""
SPEECH_CLIPS = 1440
_STEM = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
"""Of the file of an audio-only (03) speech (01) clip."""


def parse(file: str) -> Example:
    """The example that a speech clip's name describes, whatever its folders and suffix; InputError for other names."""
    match = _STEM.fullmatch(PurePosixPath(file).stem)
    if not match:
        raise InputError(
            f"{file!r} is not the name of a RAVDESS speech clip",
            expected="modality-channel-emotion-intensity-statement-repetition-actor, like 03-01-06-01-02-01-12",
        )
    emotion, intensity, statement, _, actor = match.groups()
    return Example(
        file=file,
        label=LABELS[int(emotion) - 1],
        speaker=str(int(actor)),
        sentence=statement,
        utterance=f"{actor}-{statement}-{emotion}-{intensity}",
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
