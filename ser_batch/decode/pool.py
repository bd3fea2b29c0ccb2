"""Decoding in processes of its own, so that neither a crash nor a hang inside a decoder takes the run down.

One process starts at once, while the engine is still being loaded; another follows whenever each has `QUEUE`
sources waiting, up to `workers`. A process that dies or takes too long costs the source that it was at, which
becomes an error row, and is replaced; after a crash (it may have been killed for memory) the source is tried once
more. Waveforms travel in shared memory, rows through a pipe.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from ser_batch.audio.hearing import Hearing
from ser_batch.clips import Waveform
from ser_batch.decode.process import DecodeProcess
from ser_batch.decode.slots import Slots, nameless_file
from ser_batch.decode.source import Decoded, failure, source_version
from ser_batch.decode.worker import Answer, Request, Setup
from ser_batch.errors import AudioError, EngineError, StoreError
from ser_batch.recordings.sources import Source
from ser_batch.storage.bucket import check_store

QUEUE = 8
"""Sources that wait for a process before another one is started."""
WINDOWS_A_REQUEST = 8
"""Segments of a recording decoded at a time; of a whole clip there is one."""
FILE_TIMEOUT = 120.0
"""Seconds for a clip, or for the next `WINDOWS_A_REQUEST` segments, unless told otherwise."""
LONGEST_WAIT = 3600.0
"""Seconds waited at a time, whatever the timeout: no system waits for ever when told so in milliseconds."""
START_TIMEOUT = 120.0
"""Seconds for a process to start."""

Content = Callable[[Source], bytes | None]


@dataclass
class _Job:
    """One source that has been asked for."""

    ticket: int
    source: Source
    content: int | None
    """Descriptor of its content, if it is no file by itself."""
    rows: deque[tuple[Decoded, int]] = field(default_factory=deque)
    """Rows that wait to be taken, with the slots of their waveforms."""
    received: int = 0
    process: DecodeProcess | None = None
    """Which is to decode it."""
    reader: DecodeProcess | None = None
    """Which has begun to."""
    asked: bool = False
    ended: bool = False
    crashes: int = 0

    def end(self, row: Decoded | None = None) -> None:
        """There is no more of it to come, but for `row`."""
        if row is not None:
            self.rows.append((row, -1))
        self.ended = True
        if self.content is not None:
            os.close(self.content)
            self.content = None


class DecodePool:
    """Decode processes behind one iterator.

    Args:
        hearing: what is heard of each source.
        workers: processes at most.
        ahead: clips that may wait to be taken, which bounds the memory.
        timeout: seconds that a source may take for its next segments.
    """

    def __init__(self, hearing: Hearing, *, workers: int, ahead: int, timeout: float = FILE_TIMEOUT) -> None:
        self._grant = 1 if hearing.window is None else WINDOWS_A_REQUEST
        # The source whose turn it is must always find room, or it would wait for those behind it for ever.
        self._reserve = 0 if hearing.window is None else 2 * self._grant
        self._slots = Slots(max(ahead, self._grant) + self._reserve, hearing.clip.samples)
        self._free = list(range(self._slots.count))
        self._setup = Setup(hearing, self._slots.count)
        self._workers, self._timeout = workers, timeout
        self._jobs: deque[_Job] = deque()
        self._processes = [self._start()]

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def processes(self) -> int:
        """How many there are now."""
        return len(self._processes)

    def decode(
        self, sources: Iterable[Source], content: Content = lambda _: None
    ) -> Generator[tuple[Decoded, Waveform | None]]:
        """Decode `sources`; rows come in their order, whatever the number of processes.

        Args:
            content: the bytes of a source that is no file of its own.

        Yields:
            a row, and its waveform (None: nothing to score), which holds until the next row is asked for.

        Raises:
            StoreError: the object store that a source is in is away.
        """
        tickets = ((number, source) for number, source in enumerate(sources))
        more = True
        while True:
            more = more and self._submit(tickets, content)
            if not self._jobs:
                return
            job = self._jobs[0]
            if not (job.ended or job.asked) and len(self._free) >= self._grant:
                self._ask(job)
            while job.rows:
                row, slot = job.rows.popleft()
                yield row, self._slots[slot] if slot >= 0 else None
                if slot >= 0:
                    self._free.append(slot)
            if job.ended:
                self._jobs.popleft()
            elif job.asked:
                self._wait()

    def close(self) -> None:
        """End the processes and give the memory back."""
        for process in self._processes:
            process.close()
        if self._processes:
            self._slots.close()
        self._processes = []

    def _submit(self, tickets: Iterator[tuple[int, Source]], content: Content) -> bool:
        """Ask for new sources as long as there is room; whether there may be more."""
        while len(self._free) - self._reserve >= self._grant:
            ticket, source = next(tickets, (-1, None))
            if source is None:
                return False
            job = _Job(ticket, source, None)
            self._jobs.append(job)
            try:
                inside = content(source)
            except AudioError as error:
                job.end(failure(source, source_version(source), str(error)))
                continue
            job.content = None if inside is None else nameless_file(inside)
            self._ask(job)
        return True

    def _ask(self, job: _Job) -> None:
        if job.process is None:
            job.process = self._least_busy()
        slots = tuple(self._free.pop() for _ in range(self._grant))
        job.asked = True
        # A process that has the stream already needs no content to go on with it.
        attached = job.content is not None and job.process is not job.reader
        job.reader = job.process
        job.process.ask(Request(job.ticket, job.source, attached, job.received, slots), job.content, self._timeout)

    def _least_busy(self) -> DecodeProcess:
        process = min(self._processes, key=lambda each: len(each.waiting))
        if len(process.waiting) >= QUEUE and len(self._processes) < self._workers:
            process = self._start()
            self._processes.append(process)
        return process

    def _start(self) -> DecodeProcess:
        return DecodeProcess(self._setup, self._slots.descriptor, START_TIMEOUT)

    def _wait(self) -> None:
        """Take answers, or notice that a process is dead or over its time."""
        busy = {process.connection: process for process in self._processes if process.waiting}
        now = time.monotonic()
        left = min(process.deadline for process in busy.values()) - now
        ready = wait(busy, max(0.0, min(left, LONGEST_WAIT)))
        for process in [busy[connection] for connection in ready]:  # type: ignore[index]
            answer = process.receive(self._timeout)
            if answer is None:
                self._replace(process, f"decoder crashed ({process.end()})", tries=2)
            elif isinstance(answer, StoreError):
                raise answer
            elif isinstance(answer, Answer):
                self._take(answer, process)
        for process in set(busy.values()) - {busy[connection] for connection in ready}:  # type: ignore[index]
            # An answer that came while the caller was away, scoring, was in time.
            if process.deadline <= time.monotonic() and not process.connection.poll():
                self._replace(process, f"took longer than {self._timeout:g} s to decode", tries=1)

    def _take(self, answer: Answer, process: DecodeProcess) -> None:
        request = process.waiting.popleft()
        job = self._job(request.ticket)
        job.asked = False
        used = set()
        for segment, status, error, last, slot in answer.rows:
            job.rows.append((Decoded(job.source, answer.version, segment, status, error, last), slot))
            if last:
                job.end()
            used.add(slot)
        job.received += len(answer.rows)
        self._free.extend(slot for slot in request.slots if slot not in used)

    def _replace(self, process: DecodeProcess, reason: str, *, tries: int) -> None:
        """End a process; what it had waiting goes to another, but not the source that ended it so often."""
        started = process.started
        process.kill()
        if not started:
            raise EngineError("a decode process cannot start", got=reason, remedy="Is there memory, and a Python?")
        self._processes[self._processes.index(process)] = self._start()
        culprit = self._job(process.waiting[0].ticket)
        culprit.crashes += 1
        if culprit.crashes >= tries:
            # A store that hangs makes no recording fail.
            check_store(culprit.source.path)
            culprit.end(failure(culprit.source, source_version(culprit.source), reason))
        for request in process.waiting:
            self._free.extend(request.slots)
        waiting = {request.ticket for request in process.waiting}
        for job in self._jobs:
            if job.process is process:
                job.process, job.asked = None, False
                if job.ticket in waiting and not job.ended:
                    self._ask(job)

    def _job(self, ticket: int) -> _Job:
        return next(job for job in self._jobs if job.ticket == ticket)
