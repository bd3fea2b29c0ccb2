"""What the run shares with its decode processes: open files, as descriptors (on Windows as handles), and memory.

Waveforms travel in the memory that they share, and are never copied through a pipe.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.reduction import recv_handle, send_handle
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ser_batch.clips import Waveform

if sys.platform == "win32":
    import msvcrt
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

__all__ = ["Connection", "above_streams", "descriptor_of", "handle_of", "nameless_file", "passing", "receive", "send"]


def nameless_file(content: bytes = b"") -> int:
    """The descriptor of a new file without a name, in memory where the system has such files.

    Raises:
        OSError: it cannot be made: where the system has none, no temporary folder can be written.
    """
    descriptor = _create()
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _create() -> int:
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ser-batch")
        try:
            return above_streams(descriptor)
        finally:
            os.close(descriptor)
    with TemporaryFile() as file:
        return above_streams(file.fileno())


def above_streams(descriptor: int) -> int:
    """A copy of a descriptor above those of stdin, stdout and stderr.

    Where they are closed, what is opened next has their numbers, and is written to or replaced as one of them.
    """
    copy = os.dup(descriptor)
    if copy > 2:
        return copy
    try:
        return above_streams(descriptor)
    finally:
        os.close(copy)


def handle_of(descriptor: int) -> int:
    """What another process can be given of a descriptor of this one."""
    if sys.platform == "win32":
        return msvcrt.get_osfhandle(descriptor)
    return descriptor


def descriptor_of(handle: int) -> int:
    """A descriptor of this process for what it was given."""
    if sys.platform == "win32":
        return msvcrt.open_osfhandle(handle, os.O_RDWR | os.O_BINARY)
    return handle


def passing(handles: Sequence[int]) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a process that has these handles, and that Ctrl-C does not reach."""
    if sys.platform == "win32":
        for handle in handles:
            os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": list(handles)})
        return {"startupinfo": startup, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"pass_fds": handles, "process_group": 0}


def send(connection: Connection[Any, Any], descriptor: int, process: int) -> None:
    """Send an open file to the process, of that number, at the other end."""
    send_handle(connection, handle_of(descriptor), process)


def receive(connection: Connection[Any, Any]) -> int:
    """The descriptor of the open file that comes next."""
    return descriptor_of(recv_handle(connection))


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
