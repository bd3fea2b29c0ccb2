"""A decode process, seen from the run that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any

from ser_batch.decode.descriptors import Connection, above_streams, passing, send
from ser_batch.errors import StoreError

# No more is imported: the first process is started before the run's other modules are loaded, which takes as long.
if TYPE_CHECKING:
    from ser_batch.decode.messages import Request, Response, Setup

WORKER = "ser_batch.decode.worker"
"""The module whose `main` runs in the process."""
PATIENCE = 2.0
"""Seconds that a process has to end by itself."""
START_TIMEOUT = 120.0
"""Seconds for a process to start."""


class DecodeProcess:
    """A process and the requests it has not answered yet, oldest first; `set_up` comes before the first of them."""

    def __init__(self) -> None:
        self.connection, theirs = _pipe()
        handle = theirs.fileno()
        # Our own interpreter on our own path: no second run of the main module, no imports but those of decoding.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {WORKER} import main; main({handle})"
        # One thread each for numpy; a group of its own, since Ctrl-C is for the run, which ends its processes.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            # Our end is closed whenever this process ends, however that happens: so it hears of that.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            **passing([handle]),
        )
        theirs.close()
        self.waiting: deque[Request] = deque()
        self.started = False
        self.deadline = time.monotonic() + START_TIMEOUT

    def set_up(self, setup: Setup, memory: int) -> None:
        """Tell the process what it is for, and the descriptor of the buffer that it shares."""
        self._send(setup, memory)

    def ask(self, request: Request, content: int | None, timeout: float) -> None:
        """Send a request, and the descriptor of its content; its time begins when it is the oldest."""
        if self.started and not self.waiting:
            self.deadline = time.monotonic() + timeout
        self.waiting.append(request)
        self._send(request, content if request.attached else None)

    def _send(self, message: Setup | Request, descriptor: int | None) -> None:
        try:
            self.connection.send(message)
            if descriptor is not None:
                send(self.connection, descriptor, self._process.pid)
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
        if not self.started:
            self._process.kill()  # it would end, too, but only once it has imported what it is not going to need
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
