"""A folder in an object store: a file is gathered here and goes up as one object, whole or not at all."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING

from ser_batch.errors import OutputError, StoreError
from ser_batch.output.stores import LOCK, Fill
from ser_batch.storage.bucket import locate
from ser_batch.storage.objects import WHOLE
from ser_batch.storage.urls import join

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = 32 << 20
"""Bytes of a file that are gathered in memory; a larger one, the finished table, goes through TMPDIR."""
_QUERY = 0x1000
"""PROCESS_QUERY_LIMITED_INFORMATION of Windows."""


class ObjectStore:
    """What lies directly below a prefix; see `Store`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._bucket, key = locate(self.url)
        self._prefix = f"{key}/" if key else ""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> ObjectStore:
        return ObjectStore(join(self.url, name))

    def check(self, *, may_be_made: bool) -> None:
        """Raise StoreError if there is no such bucket; a prefix needs no making."""
        self._bucket.check(self._prefix)

    def is_there(self) -> bool:
        """Whether there is anything below the prefix."""
        return bool(self.names())

    def names(self) -> list[str]:
        """Names of the objects in it, in order."""
        listed = self._bucket.listing(self._prefix, recursive=False)
        return sorted(found.key.removeprefix(self._prefix) for found in listed if not found.is_folder)

    def size(self, name: str) -> int | None:
        """Bytes of an object."""
        found = self._bucket.find(self._prefix + name)
        return None if found is None or found.is_folder else found.version[0]

    def start(self, name: str, count: int) -> bytes:
        """The first bytes of an object."""
        file = self.source(name)
        return bytes(file.read(count))

    def source(self, name: str) -> pa.NativeFile:
        """An object: a part at once, a large table as it is asked for."""
        import pyarrow as pa

        key = self._prefix + name
        file = self._bucket.open(key)
        if file.size() > WHOLE:
            return file
        return pa.BufferReader(self._bucket.attempt(key, lambda: file.read_at(file.size(), 0)))

    def write(self, name: str, fill: Fill) -> None:
        """Gather the content, then make the object of it."""
        with SpooledTemporaryFile(MEMORY) as spool:
            fill(spool)  # type: ignore[arg-type]
            length = spool.tell()
            if length > MEMORY:
                spool.flush()
                with mmap.mmap(spool.fileno(), length, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
                    self._bucket.put(self._prefix + name, view)
            else:
                spool.seek(0)
                self._bucket.put(self._prefix + name, memoryview(spool.read()))

    def mark(self, name: str) -> None:
        """Make an empty object."""
        self._bucket.put(self._prefix + name, memoryview(b""))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        self._bucket.delete(self._prefix + name)

    def clean(self, pattern: str) -> None:
        """Nothing: an upload that did not end has no name."""

    def lock(self) -> ObjectLock:
        """Say in the folder whose it is; this also finds out whether it can be written.

        Raises:
            OutputError: another run of this machine holds it.
            OSError: it cannot be written.
        """
        return ObjectLock(self)

    def remove(self) -> None:
        """Delete the folder and all below it."""
        self._bucket.delete_folder(self._prefix)


class ObjectLock:
    """An object that names the process whose the folder is.

    An object store has nothing that ends with a process. So a lock left by a process of this machine that is gone
    holds nothing, nor does one left by another machine, which cannot be asked: a run that was killed there must be
    able to go on here.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._held = True
        if LOCK in store.names():
            self._refuse_if_held()
        content = json.dumps(_process(os.getpid())).encode()
        store.write(LOCK, lambda sink: sink.write(content))

    def release(self, *, remove: bool) -> None:
        """Let another run take the folder, or remove it if it is empty."""
        if not self._held:
            return
        self._held = False
        # A lock that stays because its store is away holds nobody up.
        with suppress(OSError, StoreError):
            self._store.delete(LOCK)
            if remove and not self._store.names():
                self._store.remove()

    def _refuse_if_held(self) -> None:
        try:
            holder = json.loads(self._store.source(LOCK).read())
        except (OSError, ValueError):
            return
        if holder.get("pid") != os.getpid() and holder == _process(holder.get("pid", 0)):
            raise OutputError(
                f"another run is writing to {self._store}",
                got=f"process {holder['pid']} of this machine",
                remedy="Let it end, or choose another --out.",
            )


def _process(number: int) -> dict[str, str | int]:
    """What tells a process of this machine from all others: a number is given again after a restart."""
    try:
        started = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "unknown" if _is_alive(number) else "gone"
    return {"host": socket.gethostname(), "pid": number, "started": started}


def _is_alive(number: int) -> bool:
    if sys.platform == "win32":
        # There os.kill would send Ctrl-C.
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(_QUERY, False, number)
        return bool(handle and kernel.CloseHandle(handle))
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
