"""The process that decodes: requests in, rows out, waveforms into shared memory. Started by `decode_pool`.

It may crash or hang in a decoder: the pool then knows from the order of its answers at which recording.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, NamedTuple

from ser_batch.audio.hearing import Hearing
from ser_batch.clips import Waveform
from ser_batch.decode.slots import Slots
from ser_batch.decode.source import Decoded, Segment, Version, decode
from ser_batch.errors import StoreError
from ser_batch.recordings.sources import Source
from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    from ser_batch.decode.ahead import Ahead


class Setup(NamedTuple):
    """The first thing that a worker is told."""

    hearing: Hearing
    slots: int
    """Number of places in the shared memory."""


class Request(NamedTuple):
    """So many segments of a source, into these slots."""

    ticket: int
    """Names the source; a later request goes on where this one ended."""
    source: Source
    attached: bool
    """Whether the descriptor of its content follows."""
    skip: int
    """Segments to pass over, if this worker has not read of the source before."""
    slots: tuple[int, ...]


class Answer(NamedTuple):
    """What became of a request: at most as many rows as it had slots."""

    version: Version
    rows: list[tuple[Segment | None, str, str | None, bool, int]]
    """segment, status, error and last of `Decoded`, and the slot of the waveform; -1: none."""


def serve(requests: Connection, memory: int) -> None:
    """Answer requests, in their order, until the other end is closed.

    A StoreError goes out in place of an answer: it is the run's, not a recording's.
    """
    setup: Setup = requests.recv()
    slots = Slots(setup.slots, setup.hearing.clip.samples, memory)
    streams: dict[int, Iterator[tuple[Decoded, Waveform | None]]] = {}
    requests.send(os.getpid())
    ahead: Ahead | None = None
    while True:
        try:
            if ahead is None:
                request: Request = requests.recv()
                descriptor = recv_handle(requests) if request.attached else None
                if is_url(request.source.path) and not request.attached:
                    from ser_batch.decode.ahead import Ahead

                    ahead = Ahead(requests, request)
            if ahead is not None:
                request, descriptor = ahead.next()
            stream = streams.pop(request.ticket, None)
            if stream is None:
                stream = islice(decode(request.source, setup.hearing, descriptor), request.skip, None)
            answer = _fill(stream, request.slots, slots)
        except StoreError as error:
            requests.send(error)
            continue
        if not answer.rows[-1][3]:
            streams[request.ticket] = stream
        requests.send(answer)


def _fill(stream: Iterator[tuple[Decoded, Waveform | None]], places: tuple[int, ...], slots: Slots) -> Answer:
    rows, version = [], (0, 0)
    for place, (row, waveform) in zip(places, stream, strict=False):
        version = row.version
        if waveform is not None:
            slots[place][:] = waveform
        rows.append((row.segment, row.status, row.error, row.last, -1 if waveform is None else place))
    return Answer(version, rows)


def _leave_with_parent(alive: int) -> None:
    """End the process, even inside a decoder that hangs, when the run that started it is gone."""
    os.read(alive, 1)
    os._exit(0)


def main(requests: int, memory: int, alive: int) -> None:
    """Serve on the descriptors inherited from the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()
    # Decoders complain on stderr about every damaged frame; what matters of it is in the rows.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    try:
        serve(Connection(requests), memory)
    except (EOFError, BrokenPipeError):
        return
