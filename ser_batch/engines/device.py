"""What the TensorRT engine asks of a GPU: memory, copies, streams, events and graphs, all by plain handles.

A fake of this protocol tests the engine where there is no GPU. Work that is put on a stream runs in order within the
stream and, but for events, in any order with other streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Handle = int
"""Of a stream, an event or a graph."""


class Device(Protocol):
    """One GPU. Every method raises EngineError where the GPU refuses."""

    @property
    def name(self) -> str:
        """As the vendor calls it."""

    @property
    def compute_capability(self) -> str:
        """Its architecture: "8.9"."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of its memory, which `close` frees."""

    def page_locked(self, shape: tuple[int, int]) -> Rows:
        """An array of zeros in host memory that the GPU copies from and to by itself; gone after `close`."""

    def stream(self) -> Handle:
        """A new stream."""

    def event(self) -> Handle:
        """A new event; one that was never recorded has happened."""

    def upload(self, source: Rows, target: int, stream: Handle) -> None:
        """Put a copy from page-locked memory to an address on a stream."""

    def download(self, source: int, target: Rows, stream: Handle) -> None:
        """Put a copy from an address to page-locked memory on a stream."""

    def record(self, event: Handle, stream: Handle) -> None:
        """Let the event happen when the stream gets here."""

    def wait(self, stream: Handle, event: Handle) -> None:
        """Let the stream wait for the event as it was last recorded."""

    def synchronize(self, event: Handle | None = None) -> None:
        """Block until the event has happened; None: until all work is done."""

    def capture(self, stream: Handle, enqueue: Callable[[], None]) -> Handle:
        """What `enqueue` puts on the stream, as a graph that is launched at once; it does not run now."""

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Put a graph on a stream."""

    def close(self) -> None:
        """Free everything that was made; no other method may be called again."""
