"""How a batch of any size is served by engines of fixed batch sizes: cut into pieces, each padded to the next size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Clips start … stop of a batch, in a profile of at least as many."""

    start: int
    stop: int
    profile: int
    """Index of the batch size."""


def pieces(count: int, sizes: Sequence[int]) -> Iterator[Piece]:
    """Cut `count` clips into pieces of the largest of `sizes` (ascending), the rest into the smallest that holds it."""
    largest = len(sizes) - 1
    for start in range(0, count, sizes[largest]):
        left = count - start
        profile = next((index for index, size in enumerate(sizes) if size >= left), largest)
        yield Piece(start, min(count, start + sizes[profile]), profile)
