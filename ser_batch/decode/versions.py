"""Versions of objects that no listing has told, asked for many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from ser_batch.decode.source import source_version
from ser_batch.recordings.sources import Source
from ser_batch.storage.urls import is_url

QUESTIONS = 16
"""Objects asked about at a time."""
WAITING = 256
"""Sources that may wait for the answer about the one whose turn it is."""


def with_versions(sources: Iterable[Source]) -> Iterator[Source]:
    """The same sources in the same order; those in object stores have their versions.

    Raises:
        StoreError: an object store is away.
    """
    with ThreadPoolExecutor(QUESTIONS) as threads:
        held: deque[Source | Future[Source]] = deque()
        try:
            for source in sources:
                asked = source.version is None and is_url(source.path)
                held.append(threads.submit(_asked, source) if asked else source)
                # Files have nothing to wait for.
                while held and (len(held) > WAITING or isinstance(held[0], Source)):
                    yield _answer(held.popleft())
            while held:
                yield _answer(held.popleft())
        finally:
            for each in held:
                if isinstance(each, Future):
                    each.cancel()


def _asked(source: Source) -> Source:
    return replace(source, version=source_version(source))


def _answer(held: Source | Future[Source]) -> Source:
    return held.result() if isinstance(held, Future) else held
