"""Recorded speech, for what synthetic clips cannot show: the ranges of activations, and labels that flip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ser_batch.audio.recording import read_clip
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import InputError
from ser_batch.evaluation.truth import RAVDESS, match, ravdess_labels, read_labels
from ser_batch.recordings.sources import Source, find_audio


@dataclass(frozen=True)
class LabelledSpeech:
    """Recordings and what each of them truly is."""

    sources: tuple[Source, ...]
    targets: tuple[int, ...]
    """Index of each recording's label among the bundle's."""
    corpus: str
    """"ravdess", or the name of the table of labels."""
    sha256: str
    """Of the recordings' names and labels, in order: two certificates that share it are about the same set."""


def find_speech(folder: Path, count: int | None = None) -> tuple[Source, ...]:
    """The recordings under `folder`, or `count` of them, evenly spaced in the order of their names.

    Raises:
        InputError: there is no audio.
    """
    sources = tuple(find_audio([folder]))
    if count is None or count >= len(sources):
        return sources
    return tuple(sources[index] for index in np.linspace(0, len(sources) - 1, count).round().astype(int))


def find_labelled(folder: Path, labels: str, names: Sequence[str]) -> LabelledSpeech:
    """The labelled recordings under `folder`.

    Args:
        labels: "ravdess", whose names say the label, or a table with columns `path` and `label`.
        names: the bundle's labels.

    Raises:
        InputError: no recording has a label, one that the table lists is not there, or a label is none of `names`.
    """
    sources = find_speech(folder)
    files = [source.file for source in sources]
    if labels == RAVDESS:
        truth = ravdess_labels(files)
    else:
        table = read_labels(Path(labels))
        matching = match(files, list(table))
        if matching.missing or matching.ambiguous:
            listed = matching.missing or [files[index] for index in sorted(matching.ambiguous)]
            raise InputError(
                f"{len(listed)} recordings of {labels} cannot be told under {folder}", got=f"{listed[0]} for one"
            )
        truth = {file: table[name] for file, name in zip(files, matching.names, strict=True) if name is not None}
    if not truth:
        raise InputError(f"no recording under {folder} has a label", expected=f"{RAVDESS} names, or a table of labels")
    if unknown := sorted(set(truth.values()) - set(names)):
        raise InputError("labels are not those of the bundle", got=unknown, expected=list(names))
    labelled = tuple(source for source in sources if source.file in truth)
    listing = "".join(f"{source.file}\t{truth[source.file]}\n" for source in labelled)
    return LabelledSpeech(
        sources=labelled,
        targets=tuple(list(names).index(truth[source.file]) for source in labelled),
        corpus=RAVDESS if labels == RAVDESS else Path(labels).name,
        sha256=hashlib.sha256(listing.encode()).hexdigest(),
    )


def read_batches(sources: Sequence[Source], rule: ClipRule, size: int) -> Iterator[Waveform]:
    """(B, samples) float32, B = `size` but for the last batch, in order.

    Raises:
        AudioError: a recording cannot be decoded; none is passed over.
    """
    for begin in range(0, len(sources), size):
        yield np.stack([read_clip(source.path, rule).waveform for source in sources[begin : begin + size]])
