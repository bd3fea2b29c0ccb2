"""What training steps need, made by threads while a step runs; given out in order, so that no result depends on it.

numpy, soxr and libsndfile let go of Python's lock while they compute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat, takewhile
from typing import TypeVar

from ser_batch.machine import usable_cpus

WORKERS = min(8, usable_cpus())
"""Threads that make batches, each of them a whole one; as many batches are ready or on the way."""
Item, Made = TypeVar("Item"), TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Made]:
    """`make` of every item, in order, up to `workers` of them ahead of what is asked for; errors where they belong."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody asks for the rest
            for future in waiting:
                future.cancel()


def run_ahead(items: Iterable[Made]) -> Iterator[Made]:
    """The items, none of them None, of an iterator that one thread runs up to two steps ahead."""
    made = ahead(lambda iterator: next(iterator, None), repeat(iter(items)), workers=1)
    return takewhile(lambda item: item is not None, made)  # type: ignore[return-value]
