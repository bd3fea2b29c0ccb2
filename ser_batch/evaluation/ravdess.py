"""RAVDESS: what the name of a speech clip says.

Names are `modality-channel-emotion-intensity-statement-repetition-actor`; see Livingstone and Russo, PLOS ONE
13(5): e0196391, 2018, doi 10.1371/journal.pone.0196391.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ser_batch.errors import InputError

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""Emotions in the order of their codes 01 … 08: the default label order of the whole toolkit."""

NAME = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
"""Stem of an audio-only (03) speech (01) clip."""


@dataclass(frozen=True)
class SpeechClip:
    """The codes of a speech clip, as they are written."""

    label: str
    """One of LABELS."""
    intensity: str
    statement: str
    repetition: str
    actor: str


def parse(file: str) -> SpeechClip:
    """Read the name of a speech clip; folders and suffix do not matter. InputError for any other name."""
    match = NAME.fullmatch(PurePosixPath(file).stem)
    if not match:
        raise InputError(
            f"{file!r} is not the name of a RAVDESS speech clip",
            expected="modality-channel-emotion-intensity-statement-repetition-actor, like 03-01-06-01-02-01-12",
        )
    emotion, *rest = match.groups()
    return SpeechClip(LABELS[int(emotion) - 1], *rest)
