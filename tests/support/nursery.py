"""Decode processes as forks of one that has imported everything: Python's start takes longer than what they decode."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

HIGH = 500
"""Received descriptors are put above this number first, out of the way of those that the process wants."""
MESSAGE = 1 << 20


class Nursery:
    """Takes the place of `subprocess` where decode processes are started (`ser_batch.decode.process`)."""

    DEVNULL, PIPE, TimeoutExpired = subprocess.DEVNULL, subprocess.PIPE, subprocess.TimeoutExpired

    @cached_property
    def _served(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """The process that forks, started when the first is asked for, and the socket that asks it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path[:] = {sys.path!r}; from support.nursery import serve; serve({theirs.fileno()})"
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env={**os.environ, **threads}, process_group=0
        )
        theirs.close()
        return ours, server

    def opened(self) -> Nursery:
        """Itself, ready to be shared with processes that are forked from here on."""
        _ = self._served
        return self

    def Popen(  # noqa: N802
        self, command: Sequence[str], *, env: dict[str, str], pass_fds: Sequence[int], **_: object
    ) -> Fork:
        """A process that does what `python -c CODE` would."""
        stdin, stdin_kept = os.pipe()
        told_kept, told = os.pipe()
        message = pickle.dumps((command[-1], env, str(Path.cwd()), tuple(pass_fds)))
        socket.send_fds(self._served[0], [message], [stdin, told, *pass_fds])
        os.close(stdin)
        os.close(told)
        return Fork(stdin_kept, told_kept)

    def close(self) -> None:
        if "_served" in vars(self):
            asking, server = self._served
            asking.close()
            server.wait()


class Fork:
    """What is used of a `subprocess.Popen`."""

    def __init__(self, stdin: int, told: int) -> None:
        self.stdin: IO[bytes] = open(stdin, "wb", buffering=0)  # noqa: SIM115
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not wait([self._told], timeout):
                raise subprocess.TimeoutExpired("a decode process", timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(self.pid, signal.SIGKILL)


def serve(number: int) -> None:
    """Fork a process for each request on the socket of that number, until its other end is closed."""
    import av  # noqa: F401
    import numpy.fft  # noqa: F401

    import ser_batch.audio.ffmpeg
    import ser_batch.decode.worker  # noqa: F401

    gc.freeze()
    requests, (ended, wakeup) = socket.socket(fileno=number), socket.socketpair()
    wakeup.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno())
    living: dict[int, int] = {}
    while True:
        if ended in wait([requests, ended]):
            ended.recv(MESSAGE)
            _tell_of_ended(living, os.WNOHANG)
            continue
        message, received, _, _ = socket.recv_fds(requests, MESSAGE, 16)
        if not message:
            break
        child = os.fork()
        if not child:
            _become(*pickle.loads(message), received)
        stdin, told, *handles = received
        os.write(told, f"{child}\n".encode())
        living[child] = told
        for descriptor in (stdin, *handles):
            os.close(descriptor)
    while living:
        _tell_of_ended(living, 0)


def _tell_of_ended(living: dict[int, int], options: int) -> None:
    """Tell how processes have ended, and drop them: number → descriptor that is told."""
    while living:
        child, status = os.waitpid(-1, options)
        if not child:
            return
        told = living.pop(child)
        with suppress(BrokenPipeError):  # nobody asks any more
            os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os.close(told)


def _become(code: str, env: dict[str, str], folder: str, wanted: tuple[int, ...], received: list[int]) -> None:
    status = 1
    try:
        import fcntl

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        stdin, _, *handles = [fcntl.fcntl(each, fcntl.F_DUPFD, HIGH) for each in received]
        os.dup2(stdin, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.closerange(3, HIGH)
        for descriptor, number in zip(handles, wanted, strict=True):
            os.dup2(descriptor, number)
        for each in (stdin, _, *handles):
            if each not in wanted:
                os.close(each)
        exec(code, {"__name__": "__main__"})
        status = 0
    finally:
        os._exit(status)
