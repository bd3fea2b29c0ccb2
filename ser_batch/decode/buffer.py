"""Memory that the run shares with its decode processes: waveforms travel in it, and are never copied through a pipe."""

from __future__ import annotations

import mmap
import os

import numpy as np

from ser_batch.clips import Waveform
from ser_batch.decode.descriptors import nameless_file


class SharedBuffer:
    """Memory for `count` waveforms of `samples` float32 each, which several processes share.

    It is a file without a name, of which a kill leaves nothing.

    Args:
        descriptor: of the file of another `SharedBuffer`, in another process; None: make one.
    """

    def __init__(self, count: int, samples: int, descriptor: int | None = None) -> None:
        self.count, self.samples = count, samples
        self.descriptor = nameless_file() if descriptor is None else descriptor
        size = 4 * count * samples
        if descriptor is None:
            os.ftruncate(self.descriptor, size)
        self._memory = mmap.mmap(self.descriptor, size)

    def __getitem__(self, place: int) -> Waveform:
        """(samples,) float32, in place."""
        waveform: Waveform = np.frombuffer(self._memory, np.float32, self.samples, 4 * self.samples * place)
        return waveform

    def close(self) -> None:
        """Give the memory back, once nobody holds a view of it."""
        os.close(self.descriptor)
        self._memory = None  # type: ignore[assignment]
