"""What is timed: the fused output of a bundle, or one branch alone in an engine that holds nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from ser_batch.audio.recording import read_clip
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import AudioError, InputError
from ser_batch.recordings.sources import Source

T = TypeVar("T")


@runtime_checkable
class Timed(Protocol):
    """What an engine may offer besides: where the time of its last `run` went."""

    def timings(self) -> Mapping[str, float]:
        """Seconds of any of host_to_device, enqueue, compute and device_to_host."""
        ...


def branch_view(bundle: Bundle, target: str) -> Bundle:
    """`bundle` as an engine needs it to load `target` alone; its fusion no longer fits, so no scorer takes it.

    Raises:
        InputError: the bundle has no such branch.
    """
    if target == FUSED:
        return bundle
    chosen = tuple(branch for branch in bundle.manifest.branches if branch.name == target)
    if not chosen:
        raise InputError(f"{bundle.id} has no branch {target!r}", expected=" or ".join(targets_of(bundle)))
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, branches=chosen))


def targets_of(bundle: Bundle) -> tuple[str, ...]:
    """Every target of a bundle: its branches, then "fused"."""
    return (*(branch.name for branch in bundle.manifest.branches), FUSED)


def check_positive(**numbers: float | Sequence[float] | None) -> None:
    """InputError that names the first number (or list) that is empty or below 1; None was not asked for."""
    for name, value in numbers.items():
        values = value if isinstance(value, Sequence) else (1 if value is None else value,)
        if not values or min(values) < 1:
            raise InputError(f"{name.replace('_', ' ')} must be at least 1", got=value)


def check_above_zero(**numbers: float | None) -> None:
    """InputError that names the first number that is not above 0, of those that were asked for."""
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be above 0", got=value)


def read_clips(sources: Sequence[Source], rule: ClipRule, limit: int) -> tuple[Waveform, list[Source]]:
    """The clips of the first `limit` readable sources, (N, samples), and those sources.

    Raises:
        InputError: none can be read.
    """
    found = list(readable(sources, lambda path: read_clip(path, rule).waveform, limit))
    return np.stack([clip for _, clip in found]), [source for source, _ in found]


def readable(sources: Sequence[Source], read: Callable[[str], T], limit: int) -> Iterator[tuple[Source, T]]:
    """The first `limit` sources that `read` can read, each with what it made of their path.

    Raises:
        InputError: none can be read.
    """
    found, failure = 0, None
    for source in sources:
        if found == limit:
            return
        try:
            content = read(source.path)
        except AudioError as error:
            failure = error
            continue
        found += 1
        yield source, content
    if not found:
        raise InputError("there are no clips to measure with: no recording can be read", got=failure)


def take(clips: Waveform, batch: int, turn: int) -> Waveform:
    """Batch number `turn` of `clips` (N, samples), going round: (batch, samples), contiguous."""
    return clips[np.arange(turn * batch, (turn + 1) * batch) % len(clips)]
