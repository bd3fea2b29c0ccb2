"""Decoding in processes of its own, so that neither a crash nor a hang inside a decoder takes the run down.

One process starts at once, while the engine is still being loaded; another follows whenever each has `QUEUE`
recordings waiting, up to `workers`. A process that dies or takes too long costs the recording that it was at, which
becomes an error row, and is replaced; after a crash (it may have been killed for memory) the recording is tried once
more. Waveforms travel in a shared buffer, segments through a pipe.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import wait

from ser_batch.clips import Segmentation, Waveform
from ser_batch.decode.buffer import SharedBuffer
from ser_batch.decode.descriptors import nameless_file
from ser_batch.decode.messages import Request, Response, Setup
from ser_batch.decode.process import DecodeProcess
from ser_batch.errors import AudioError, EngineError, StoreError
from ser_batch.recordings.recording import Recording, Segment, current_version, failed
from ser_batch.storage.bucket import check_store

QUEUE = 8
"""Recordings that wait for a process before another one is started."""
WINDOWS_PER_REQUEST = 8
"""Segments of a recording decoded at a time; of a whole clip there is one."""
FILE_TIMEOUT = 120.0
"""Seconds for a clip, or for the next `WINDOWS_PER_REQUEST` segments, unless told otherwise."""
LONGEST_WAIT = 3600.0
"""Seconds waited at a time, whatever the timeout: no system waits for ever when told so in milliseconds."""

Content = Callable[[Recording], bytes | None]
"""The bytes of a recording that is no file of its own."""


@dataclass
class _Job:
    """One recording that has been asked for."""

    ticket: int
    recording: Recording
    content: int | None
    """Descriptor of its content, if it is no file by itself."""
    segments: deque[tuple[Segment, int]] = field(default_factory=deque)
    """Those that wait to be taken, with the places of their waveforms."""
    received: int = 0
    process: DecodeProcess | None = None
    """Which is to decode it."""
    reader: DecodeProcess | None = None
    """Which has begun to."""
    asked: bool = False
    ended: bool = False
    crashes: int = 0

    def end(self, segment: Segment | None = None) -> None:
        """There is no more of it to come, but for `segment`."""
        if segment is not None:
            self.segments.append((segment, -1))
        self.ended = True
        if self.content is not None:
            os.close(self.content)
            self.content = None


class DecodePool:
    """Decode processes behind one iterator.

    Args:
        segmentation: which segments of each recording are wanted.
        workers: processes at most.
        prefetch: clips that may wait to be taken, which bounds the memory.
        timeout: seconds that a recording may take for its next segments.
        first: a process that has been started already, and is the pool's from here on.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        *,
        workers: int,
        prefetch: int,
        timeout: float = FILE_TIMEOUT,
        first: DecodeProcess | None = None,
    ) -> None:
        self._grant = 1 if segmentation.is_one_clip else WINDOWS_PER_REQUEST
        # Most recordings are short; what is long is found out with its first segment.
        self._first_grant = 1 if segmentation.is_one_row else self._grant
        # The recording whose turn it is must always find room, or it would wait for those behind it for ever.
        self._reserve = 0 if segmentation.is_one_clip else 2 * self._grant
        self._buffer = SharedBuffer(max(prefetch, self._grant) + self._reserve, segmentation.clip.samples)
        self._free = list(range(self._buffer.count))
        self._setup = Setup(segmentation, self._buffer.count)
        self._workers, self._timeout = workers, timeout
        self._jobs: deque[_Job] = deque()
        self._processes = [self._set_up(first or DecodeProcess())]

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def processes(self) -> int:
        """How many there are now."""
        return len(self._processes)

    def decode(
        self, recordings: Iterable[Recording], content: Content = lambda _: None
    ) -> Generator[tuple[Segment, Waveform | None]]:
        """Decode `recordings`; their segments come in order, whatever the number of processes.

        Yields:
            a segment, and its waveform (None: nothing to score), which is valid until the next one is asked for.

        Raises:
            StoreError: the object store that a recording is in is away.
        """
        tickets = iter(enumerate(recordings))
        more = True
        while True:
            self._go_on()
            more = more and self._submit(tickets, content)
            if not self._jobs:
                return
            job = self._jobs[0]
            if not (job.ended or job.asked) and len(self._free) >= self._grant:
                self._ask(job)
            while job.segments:
                segment, place = job.segments.popleft()
                yield segment, self._buffer[place] if place >= 0 else None
                if place >= 0:
                    self._free.append(place)
            if job.ended:
                self._jobs.popleft()
            elif job.asked:
                self._wait()

    def close(self) -> None:
        """End the processes and give the memory back."""
        for process in self._processes:
            process.close()
        if self._processes:
            self._buffer.close()
        self._processes = []

    def _go_on(self) -> None:
        """Ask for more of the long recordings behind the first, as many as there are processes, while there is room."""
        for job in islice(self._jobs, 1, 1 + self._workers):
            if len(self._free) - self._reserve < self._grant:
                return
            if job.received and not (job.asked or job.ended) and len(job.segments) < self._grant:
                self._ask(job)

    def _submit(self, tickets: Iterator[tuple[int, Recording]], content: Content) -> bool:
        """Ask for new recordings as long as there is room; whether there may be more."""
        while len(self._free) - self._reserve >= self._first_grant:
            ticket, recording = next(tickets, (-1, None))
            if recording is None:
                return False
            job = _Job(ticket, recording, None)
            self._jobs.append(job)
            try:
                inside = content(recording)
            except AudioError as error:
                job.end(failed(recording, current_version(recording), error.reason))
                continue
            job.content = None if inside is None else nameless_file(inside)
            self._ask(job)
        return True

    def _ask(self, job: _Job) -> None:
        if job.process is None:
            job.process = self._least_busy()
        places = tuple(self._free.pop() for _ in range(self._grant if job.received else self._first_grant))
        job.asked = True
        # A process that has the stream already needs no content to go on with it.
        attached = job.content is not None and job.process is not job.reader
        job.reader = job.process
        request = Request(job.ticket, job.recording, attached, job.received, places)
        job.process.ask(request, job.content, self._timeout)

    def _least_busy(self) -> DecodeProcess:
        process = min(self._processes, key=lambda each: len(each.waiting))
        if len(process.waiting) >= QUEUE and len(self._processes) < self._workers:
            process = self._set_up(DecodeProcess())
            self._processes.append(process)
        return process

    def _set_up(self, process: DecodeProcess) -> DecodeProcess:
        process.set_up(self._setup, self._buffer.descriptor)
        return process

    def _wait(self) -> None:
        """Take responses, or notice that a process is dead or over its time."""
        busy = {process.connection: process for process in self._processes if process.waiting}
        now = time.monotonic()
        left = min(process.deadline for process in busy.values()) - now
        ready = wait(busy, max(0.0, min(left, LONGEST_WAIT)))
        for process in [busy[connection] for connection in ready]:  # type: ignore[index]
            response = process.receive(self._timeout)
            if response is None:
                self._replace(process, f"decoder crashed ({process.end()})", tries=2)
            elif isinstance(response, StoreError):
                raise response
            elif isinstance(response, Response):
                self._take(response, process)
        for process in set(busy.values()) - {busy[connection] for connection in ready}:  # type: ignore[index]
            # A response that came while the caller was away, scoring, was in time.
            if process.deadline <= time.monotonic() and not process.connection.poll():
                self._replace(process, f"took longer than {self._timeout:g} s to decode", tries=1)

    def _take(self, response: Response, process: DecodeProcess) -> None:
        request = process.waiting.popleft()
        job = self._job(request.ticket)
        job.asked = False
        for segment, place in zip(response.segments, response.places, strict=True):
            job.segments.append((segment._replace(recording=job.recording), place))
            if segment.last:
                job.end()
        job.received += len(response.segments)
        self._free.extend(set(request.places) - set(response.places))

    def _replace(self, process: DecodeProcess, reason: str, *, tries: int) -> None:
        """End a process; what it had waiting goes to another, but not the recording that ended it so often."""
        started = process.started
        process.kill()
        if not started:
            raise EngineError("a decode process cannot start", got=reason, remedy="Is there memory, and a Python?")
        self._processes[self._processes.index(process)] = self._set_up(DecodeProcess())
        culprit = self._job(process.waiting[0].ticket)
        culprit.crashes += 1
        if culprit.crashes >= tries:
            # A store that hangs makes no recording fail.
            check_store(culprit.recording.path)
            culprit.end(failed(culprit.recording, current_version(culprit.recording), reason))
        for request in process.waiting:
            self._free.extend(request.places)
        waiting = {request.ticket for request in process.waiting}
        for job in self._jobs:
            if job.process is process:
                job.process, job.asked = None, False
                if job.ticket in waiting and not job.ended:
                    self._ask(job)

    def _job(self, ticket: int) -> _Job:
        return next(job for job in self._jobs if job.ticket == ticket)
