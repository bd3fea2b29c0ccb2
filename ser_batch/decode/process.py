"""A decode process, seen from the run that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from multiprocessing.connection import Pipe
from typing import Any

from ser_batch.decode.descriptors import Connection, above_streams, handle_of, passing, send
from ser_batch.decode.worker import Request, Response, Setup
from ser_batch.errors import StoreError

WORKER = "ser_batch.decode.worker"
"""The module whose `main` runs in the process."""
PATIENCE = 2.0
"""Seconds that a process has to end by itself."""


class DecodeProcess:
    """A process and the requests it has not answered yet, oldest first."""

    def __init__(self, setup: Setup, memory: int, timeout: float) -> None:
        self.connection, theirs = _pipe()
        handles = theirs.fileno(), handle_of(memory)
        # Our own interpreter on our own path: no second run of the main module, no imports but those of decoding.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {WORKER} import main; main{handles!r}"
        # One thread each for numpy; a group of its own, since Ctrl-C is for the run, which ends its processes.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            # Our end is closed whenever this process ends, however that happens: so it hears of that.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            **passing(handles),
        )
        theirs.close()
        self.waiting: deque[Request] = deque()
        self.started = False
        self.deadline = time.monotonic() + timeout
        self.connection.send(setup)

    def ask(self, request: Request, content: int | None, timeout: float) -> None:
        """Send a request, and the descriptor of its content; its time begins when it is the oldest."""
        if self.started and not self.waiting:
            self.deadline = time.monotonic() + timeout
        self.waiting.append(request)
        try:
            self.connection.send(request)
            if request.attached and content is not None:
                send(self.connection, content, self._process.pid)
        except (BrokenPipeError, ConnectionResetError):
            # It has crashed; that is found out where its responses are waited for.
            return

    def receive(self, timeout: float) -> Response | StoreError | int | None:
        """The next response (the process id when it has started), or None if there will be none.

        A StoreError comes in place of a response.
        """
        try:
            response: Response | StoreError | int = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.started = True
        self.deadline = time.monotonic() + timeout
        return response

    def end(self) -> str:
        """How the process ended, in words: SIGSEGV, exit 1."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def kill(self) -> None:
        """End the process now, whatever it is in."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Let the process end, and see that it does."""
        if self.connection.closed:
            return
        self.connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _pipe() -> tuple[Connection[Any, Any], Connection[Any, Any]]:
    """Two ends of a pipe, neither of which passes for a standard stream."""
    ours, theirs = Pipe()
    if sys.platform == "win32":
        return ours, theirs
    with ours, theirs:
        return Connection(above_streams(ours.fileno())), Connection(above_streams(theirs.fileno()))
