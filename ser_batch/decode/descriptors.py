"""Open files that the run shares with its decode processes, as descriptors, on Windows as handles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.reduction import recv_handle, send_handle
from tempfile import TemporaryFile
from typing import Any

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
