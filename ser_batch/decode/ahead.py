"""Objects fetched while the requests for them wait: a store far away answers late, but many questions at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ser_batch.decode.source import source_version
from ser_batch.storage.objects import fetch_ahead
from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    from ser_batch.decode.worker import Request

FETCHES = 8
"""Objects fetched at a time by one decode process."""


class Ahead:
    """The requests of a connection in their order; what those that wait will open is fetched meanwhile.

    Args:
        first: a request that was received already.
    """

    def __init__(self, requests: Connection, first: Request) -> None:
        self._requests = requests
        self._threads = ThreadPoolExecutor(FETCHES)
        self._waiting: SimpleQueue[tuple[Future[Request], int | None] | EOFError | OSError] = SimpleQueue()
        self._add(first)
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> tuple[Request, int | None]:
        """The next request, and the descriptor of its content if it has some.

        Raises:
            EOFError: there are no more.
            StoreError: the store of its source is away.
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
        descriptor = recv_handle(self._requests) if request.attached else None
        # What has been begun is open already.
        fetched = is_url(request.source.path) and not request.attached and request.skip == 0
        future = self._threads.submit(_fetch, request) if fetched else _done(request)
        self._waiting.put((future, descriptor))


def _fetch(request: Request) -> Request:
    source = request.source
    fetch_ahead(source.path)
    return request._replace(source=replace(source, version=source_version(source)))


def _done(request: Request) -> Future[Request]:
    future: Future[Request] = Future()
    future.set_result(request)
    return future
