"""What a run and its decode processes tell each other: a setup, then requests and their responses."""

from __future__ import annotations

from typing import NamedTuple

from ser_batch.clips import Segmentation
from ser_batch.recordings.recording import Recording, Segment


class Setup(NamedTuple):
    """The first thing that a worker is told; the descriptor of the shared buffer follows."""

    segmentation: Segmentation
    places: int
    """Number of waveforms in the shared buffer."""


class Request(NamedTuple):
    """So many segments of a recording, into these places of the shared buffer."""

    ticket: int
    """Names the recording; a later request goes on where this one ended."""
    recording: Recording
    attached: bool
    """Whether the descriptor of its content follows."""
    skip: int
    """Segments to pass over, if this worker has not read of the recording before."""
    places: tuple[int, ...]


class Response(NamedTuple):
    """What became of a request: at most as many segments as it had places."""

    segments: list[Segment]
    places: list[int]
    """Where the waveform of each segment is; -1: it has none."""
