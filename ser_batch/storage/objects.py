"""An object as a file to read from: small ones at once, large ones block by block."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ser_batch.storage.bucket import Bucket, Result, Version, locate
from ser_batch.storage.urls import is_url

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 1 << 20
"""Bytes fetched at a time: a clip of most recordings, header and all."""
WHOLE = 4 << 20
"""Bytes up to which an object is fetched at once."""
KEPT = 8
"""Blocks held of one object: decoders go back to headers, and to the end."""


class ObjectFile(io.RawIOBase):
    """An object, read as a file by a decoder; memory holds `KEPT` blocks of it.

    libsndfile asks for bytes through callbacks that cannot raise: a failed read looks like the end of the file,
    and is kept in `failure` for whoever opened it to look at.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._file = bucket.open(key)
        self.size: int = self._file.size()
        self._block = self.size if self.size <= WHOLE else BLOCK
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; beyond the end there is nothing to read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a block; 0 at the end, and after a failure."""
        view = memoryview(buffer).cast("B")
        if self.failure or self._position >= self.size or not len(view):
            return 0
        number, offset = divmod(self._position, self._block)
        try:
            chunk = self._fetch(number)[offset : offset + len(view)]
        except Exception as error:
            self.failure = error
            return 0
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def close(self) -> None:
        """Let go of the object."""
        if not self.closed:
            self._file.close()
            self._blocks.clear()
        super().close()

    def _fetch(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * self._block
        wanted = min(self._block, self.size - start)
        block: bytes = self._bucket.attempt(self._key, lambda: self._file.read_at(wanted, start))
        if len(block) != wanted:
            raise OSError(f"the object changed while it was read: {len(block)} bytes of {wanted}")
        self._blocks[number] = block
        if len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        return block


_prefetched: dict[str, Future[ObjectFile]] = {}
"""Objects on their way that nobody has opened yet."""


def prefetch_object(url: str) -> None:
    """Open an object and fetch its beginning for the `open_object` to come, which then does not wait."""
    future: Future[ObjectFile] = Future()
    # Of several that are asked for at once, the first is enough.
    if _prefetched.setdefault(url, future) is not future:
        return
    try:
        file = ObjectFile(*locate(url))
        file.read(1)
        file.seek(0)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(file)


def open_object(url: str) -> ObjectFile:
    """Open an object for reading.

    Raises:
        OSError: there is none, or it cannot be had.
        StoreError: the store serves nothing of this bucket.
    """
    fetched = _prefetched.pop(url, None)
    return ObjectFile(*locate(url)) if fetched is None else fetched.result()


def readable(path: str) -> str | pa.NativeFile:
    """What pyarrow's readers take: the path of a file, or an opened object."""
    if not is_url(path):
        return local_source(path)
    bucket, key = locate(path)
    return bucket.open(key)


def local_source(path: str) -> str | pa.NativeFile:
    """The path of a file; or, where its bytes are not UTF-8 as Python has them, which pyarrow demands, the file."""
    try:
        path.encode()
    except UnicodeEncodeError:
        import pyarrow as pa

        return pa.PythonFile(open(path, "rb"), mode="r")  # noqa: PTH123 — closed with what reads it
    return path


def attempt(path: str, action: Callable[[], Result]) -> Result:
    """Do what reads from `path`; if that is a URL, again while its failure may pass (see `Bucket.attempt`)."""
    if not is_url(path):
        return action()
    bucket, key = locate(path)
    return bucket.attempt(key, action)


def object_version(url: str) -> Version | None:
    """Size and modification time of an object, or None if there is none.

    Raises:
        OSError: it cannot be had.
        StoreError: the store serves nothing of this bucket.
    """
    bucket, key = locate(url)
    found = bucket.find(key)
    return None if found is None or found.is_folder else found.version


def is_prefix(url: str) -> bool:
    """Whether there are objects below a URL, and no object at it."""
    bucket, key = locate(url)
    found = bucket.find(key)
    return found is not None and found.is_folder
