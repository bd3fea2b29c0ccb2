"""A GPU that is not there, in whose place its work is done: the order of things is real.

Work put on a stream does not run until someone waits for it, or, with a seed, at any moment before: whoever forgets
to wait reads NaN, or what was there before.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ser_batch.errors import EngineError


class Marker:
    """One recording of an event."""

    def __init__(self, stream: int) -> None:
        self.stream, self.done = stream, False


class FakeDevice:
    """A `Device` of `memory` bytes; `calls` tells what was asked of it, in order."""

    name = "Fake GPU"

    def __init__(self, seed: int | None = None, memory: int = 2**34, compute_capability: str = "8.9") -> None:
        self.compute_capability = compute_capability
        self.calls: list[tuple[Any, ...]] = []
        self.closed = False
        self._random = None if seed is None else random.Random(seed)
        self._left, self._next = memory, 1 << 20
        self._memory: dict[int, np.ndarray] = {}
        self._streams: dict[int, deque[tuple[str, Any]]] = {}
        self._events: dict[int, Marker | None] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._capturing: dict[int, list[Callable[[], None]]] = {}

    def allocate(self, size: int) -> int:
        self._say("allocate", size)
        if size > self._left:
            raise EngineError("the GPU has no memory left")
        self._left -= size
        address = self._handle(size)
        self._memory[address] = np.full(size, 255, np.uint8)  # four of them are a NaN
        return address

    def page_locked(self, shape: tuple[int, int]) -> np.ndarray:
        self._say("page_locked", shape)
        return np.zeros(shape, np.float32)

    def stream(self) -> int:
        self._say("stream")
        handle = self._handle()
        self._streams[handle] = deque()
        return handle

    def event(self) -> int:
        self._say("event")
        handle = self._handle()
        self._events[handle] = None
        return handle

    def upload(self, source: np.ndarray, target: int, stream: int) -> None:
        self._say("upload", len(source))
        self.enqueue(stream, lambda: self.view(target, source.shape).__setitem__(slice(None), source))

    def download(self, source: int, target: np.ndarray, stream: int) -> None:
        self._say("download", len(target))
        self.enqueue(stream, lambda: target.__setitem__(slice(None), self.view(source, target.shape)))

    def record(self, event: int, stream: int) -> None:
        self._say("record", event, stream)
        self._events[event] = marker = Marker(stream)
        self._put(stream, ("record", marker))

    def wait(self, stream: int, event: int) -> None:
        self._say("wait", stream, event)
        self._put(stream, ("wait", self._events[event]))

    def synchronize(self, event: int | None = None) -> None:
        self._say("synchronize", event)
        for marker in [self._events[event]] if event is not None else list(map(self._last, self._streams)):
            if marker is not None:
                self._run_until(marker)

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        self._say("capture", stream)
        self._capturing[stream] = []
        enqueue()
        handle = self._handle()
        self._graphs[handle] = self._capturing.pop(stream)
        return handle

    def launch(self, graph: int, stream: int) -> None:
        self._say("launch", graph)
        for work in self._graphs[graph]:
            self.enqueue(stream, work)

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """What a library does that was handed a stream."""
        if stream in self._capturing:
            self._capturing[stream].append(work)
        else:
            self._put(stream, ("do", work))

    def view(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """The floats at an address."""
        return self._memory[address][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)

    def size(self, address: int) -> int:
        """Bytes that were allocated at an address."""
        return len(self._memory[address])

    def said(self, *names: str) -> list[str]:
        """The names of the calls, of `names` only."""
        return [call[0] for call in self.calls if call[0] in names]

    def _say(self, *call: Any) -> None:
        assert not self.closed, f"{call} after close"
        self.calls.append(call)

    def _handle(self, size: int = 0) -> int:
        self._next += max(size, 1)
        return self._next - max(size, 1)

    def _put(self, stream: int, operation: tuple[str, Any]) -> None:
        assert stream not in self._capturing
        self._streams[stream].append(operation)
        if self._random:
            for _ in range(self._random.randrange(6)):
                self._step(self._random.choice(list(self._streams)))

    def _step(self, stream: int) -> Marker | None:
        """Do the next thing on a stream, if there is one; the marker that it waits for, if it does."""
        if not self._streams[stream]:
            return None
        kind, what = self._streams[stream][0]
        if kind == "wait" and what is not None and not what.done:
            return what
        self._streams[stream].popleft()
        if kind == "do":
            what()
        elif kind == "record":
            what.done = True
        return None

    def _run_until(self, marker: Marker) -> None:
        while not marker.done:
            if (blocked := self._step(marker.stream)) is not None:
                self._run_until(blocked)

    def _last(self, stream: int) -> Marker:
        marker = Marker(stream)
        self._streams[stream].append(("record", marker))
        return marker
