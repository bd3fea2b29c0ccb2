"""The process that decodes: requests in, segments out, waveforms into the shared buffer. Started by `process`.

It may crash or hang in a decoder: the pool then knows from the order of its responses at which recording. Objects
whose requests wait are fetched meanwhile: a store far away answers late, but many questions at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ser_batch.clips import Waveform
from ser_batch.decode.buffer import SharedBuffer
from ser_batch.decode.descriptors import Connection, receive
from ser_batch.decode.messages import Request, Response, Setup
from ser_batch.decode.segments import decode
from ser_batch.errors import StoreError
from ser_batch.recordings.recording import Segment, current_version
from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    from concurrent.futures import Future

MEMORY = 2 << 30
"""Bytes that a decode process may take: an index of a thousand hours, and no more."""
STDIN, STDERR = 0, 2
PREFETCHED = 8
"""Objects fetched at a time by one decode process."""


def serve(requests: Connection[Any, Any]) -> None:
    """Answer requests, in their order, until the other end is closed.

    A StoreError goes out in place of a response: it is the run's, not a recording's.
    """
    setup: Setup = requests.recv()
    buffer = SharedBuffer(setup.places, setup.segmentation.clip.samples, receive(requests))
    streams: dict[int, Iterator[tuple[Segment, Waveform | None]]] = {}
    requests.send(os.getpid())
    prefetch: Prefetch | None = None
    while True:
        try:
            if prefetch is None:
                request: Request = requests.recv()
                descriptor = receive(requests) if request.attached else None
                if is_url(request.recording.path) and not request.attached:
                    prefetch = Prefetch(requests, request)
            if prefetch is not None:
                request, descriptor = prefetch.next()
            stream = streams.pop(request.ticket, None)
            if stream is None:
                stream = islice(decode(request.recording, setup.segmentation, descriptor), request.skip, None)
            response = _fill(stream, request.places, buffer)
        except StoreError as error:
            requests.send(error)
            continue
        if not response.segments[-1].last:
            streams[request.ticket] = stream
        requests.send(response)


def _fill(stream: Iterator[tuple[Segment, Waveform | None]], places: tuple[int, ...], buffer: SharedBuffer) -> Response:
    response = Response([], [])
    for place, (segment, waveform) in zip(places, stream, strict=False):
        if waveform is not None:
            buffer[place][:] = waveform
        response.segments.append(segment)
        response.places.append(-1 if waveform is None else place)
    return response


class Prefetch:
    """The requests of a connection in their order; the objects of those that wait are fetched meanwhile.

    Args:
        first: a request that was received already.
    """

    def __init__(self, requests: Connection[Any, Any], first: Request) -> None:
        # Imported here: runs over files start without it.
        from concurrent.futures import ThreadPoolExecutor

        self._requests = requests
        self._threads = ThreadPoolExecutor(PREFETCHED)
        self._waiting: SimpleQueue[tuple[Future[Request], int | None] | EOFError | OSError] = SimpleQueue()
        self._add(first)
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> tuple[Request, int | None]:
        """The next request, and the descriptor of its content if it has some.

        Raises:
            EOFError: there are no more.
            StoreError: the store of its recording is away.
        """
        item = self._waiting.get()
        if isinstance(item, EOFError | OSError):
            raise EOFError from item
        request, descriptor = item
        return request.result(), descriptor

    def _receive(self) -> None:
        try:
            while True:
                self._add(self._requests.recv())
        except (EOFError, OSError) as error:
            self._waiting.put(error)

    def _add(self, request: Request) -> None:
        descriptor = receive(self._requests) if request.attached else None
        # What has been begun is open already.
        fetched = is_url(request.recording.path) and not request.attached and request.skip == 0
        future = self._threads.submit(_fetch, request) if fetched else _done(request)
        self._waiting.put((future, descriptor))


def _fetch(request: Request) -> Request:
    from dataclasses import replace

    from ser_batch.storage.objects import prefetch_object

    recording = request.recording
    prefetch_object(recording.path)
    return request._replace(recording=replace(recording, version=current_version(recording)))


def _done(request: Request) -> Future[Request]:
    from concurrent.futures import Future

    future: Future[Request] = Future()
    future.set_result(request)
    return future


def _leave_with_parent() -> None:
    """End the process, even inside a decoder that hangs, when the run, which holds its stdin, is gone."""
    os.read(STDIN, 1)
    os._exit(0)


def _limit_memory() -> None:
    """Let a header that lies about its size fail to be believed, not take the machine's memory."""
    if sys.platform == "win32":
        return
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    except (ImportError, OSError, ValueError):
        # There is no such limit on this system.
        return


def main(requests: int) -> None:
    """Serve on the handle inherited from the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _limit_memory()
    # Decoders complain on stderr about every damaged frame; what matters of it is in the rows.
    # By number: where the run's own stderr is closed, Python has none here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    try:
        serve(Connection(requests))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nothing is left to be written, and the run waits
