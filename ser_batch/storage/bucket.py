"""A bucket: its requests, tried again while a failure may pass, and judged when it does not.

What one object lacks and what the store lacks are told apart: an object that cannot be had, while its store
answers, is that object's failure (OSError); a store that is away, refuses the keys or has lost the bucket is the
run's (StoreError), and no recording's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ser_batch.errors import StoreError
from ser_batch.storage.connection import may_pass, no_such_folder, store_error
from ser_batch.storage.urls import ObjectUrl, is_url, parse_url

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

Result = TypeVar("Result")
PATIENCE = "SER_BATCH_STORE_PATIENCE"
"""Environment variable: seconds for which a store that does not answer is waited for; a server may restart."""
DEFAULT_PATIENCE = 30.0
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts; the last one holds for all that follow."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_NO_SIGN_REQUEST=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS; GOOGLE_NO_SIGN_REQUEST=true for a public bucket",
}
PUT_BYTES = 8 << 20
"""Bytes handed over at a time; what is larger than pyarrow's parts goes up in several, and appears at the end."""
SECOND = 1_000_000_000
Version = tuple[int, int]
"""Size in bytes and modification time in ns."""


class Found(NamedTuple):
    """What a listing says of an object or of a folder of them."""

    key: str
    is_folder: bool
    version: Version
    """Its time is cut to the second: a listing knows more of it than a request for one object does."""


class Bucket:
    """One bucket of a store; keys are relative to it."""

    def __init__(self, scheme: str, name: str, files: fs.FileSystem) -> None:
        self.scheme, self.name = scheme, name
        self._files = files
        self._good: str | None = None
        """An object that was there a while ago."""
        self._away = False

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"

    def find(self, key: str) -> Found | None:
        """The object or folder of that name, or None; the bucket itself is a folder."""
        info = self.attempt(key, lambda: self._files.get_file_info(self._path(key)))
        found = self._found(info)
        if found is None:
            # An absent bucket answers like an absent object.
            self.check(key)
        elif not found.is_folder:
            self._good = key
        return found

    def listing(self, key: str, *, recursive: bool) -> Iterator[Found]:
        """What is below a folder, in no particular order; nothing if there is no such folder.

        Raises:
            StoreError: there is no such bucket, or it cannot be listed.
        """
        if self.scheme == "gs" and not recursive:
            # pyarrow lists no folder of Google's store but those that an empty object stands for.
            yield from self._folded(key)
            return
        for info in self.attempt(key, lambda: self._below(key, recursive=recursive)):
            found = self._found(info)
            if found is not None:
                yield found

    def open(self, key: str) -> pa.NativeFile:
        """An object for reading at any place; `attempt` is for the reads, too.

        Raises:
            OSError: this object cannot be had (FileNotFoundError: there is none).
            StoreError: the store serves nothing of this bucket.
        """
        opened = self.attempt(key, lambda: self._files.open_input_file(self._path(key)))
        self._good = key
        return opened

    def put(self, key: str, content: memoryview) -> None:
        """Make an object of `content`: it is there whole, or not at all, also when this process is killed.

        Raises:
            OSError: it cannot be made, though the store is well.
            StoreError: the store serves nothing of this bucket.
        """

        def upload() -> None:
            with self._files.open_output_stream(self._path(key), compression=None) as stream:
                for start in range(0, len(content), PUT_BYTES):
                    stream.write(content[start : start + PUT_BYTES])

        # Whatever leaves `upload` halfway closes the stream, and closing makes the object. Only Ctrl-C could, and
        # it comes to the main thread alone.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self.attempt, key, upload).result()

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        try:
            self.attempt(key, lambda: self._files.delete_file(self._path(key)))
        except FileNotFoundError:
            return

    def delete_folder(self, key: str) -> None:
        """Delete everything below a folder, and what marks it as one."""

        def delete() -> None:
            try:
                self._files.delete_dir(self._path(key))
            except OSError as error:
                if not no_such_folder(error):
                    raise

        self.attempt(key, delete)

    def attempt(self, key: str, action: Callable[[], Result]) -> Result:
        """Do a request about `key`, again while its failure may pass.

        Raises:
            OSError: it failed, and the store is well (FileNotFoundError: there is no such object).
            StoreError: the store serves nothing of this bucket.
        """
        deadline = None
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            try:
                result = action()
                self._away = False
                return result
            except OSError as error:
                if deadline is None:
                    # What was away a moment ago is not waited for again, at the end of a run, with each request.
                    deadline = time.monotonic() + (0 if self._away else patience())
                if may_pass(error) and time.monotonic() + pause <= deadline:
                    time.sleep(pause)
                    continue
                self.check(key)
                raise
        raise AssertionError

    def check(self, key: str = "") -> None:
        """Find out whether the store serves this bucket.

        Raises:
            StoreError: it does not; says why, and what to do.
        """
        # A listing, since the answer to a question about a bucket or an object has no body to say why not; below
        # the key, where a policy that grants a prefix only lets it, and where there is next to nothing to list.
        try:
            self._below(f"{key.strip('/')}/.ser-batch", recursive=False)
        except OSError as error:
            if self._still_reads():
                return
            self._away = True
            raise store_error(str(self), error, CREDENTIALS[self.scheme]) from error

    def _still_reads(self) -> bool:
        """Whether what was there is there: keys may be allowed to read objects and not to list them."""
        if self._good is None:
            return False
        try:
            return self._found(self._files.get_file_info(self._path(self._good))) is not None
        except OSError:
            return False

    def _below(self, key: str, *, recursive: bool) -> list[fs.FileInfo]:
        """One request for what is below a key: nothing, where there is no such folder."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path(key), recursive=recursive)
        try:
            infos: list[fs.FileInfo] = self._files.get_file_info(selector)
        except OSError as error:
            if no_such_folder(error):
                return []
            raise
        return infos

    def _folded(self, key: str) -> Iterator[Found]:
        """What is right below a folder, from all that is below it."""
        prefix, folders = f"{key.strip('/')}/".lstrip("/"), set()
        for found in self.listing(key, recursive=True):
            name, inside, _ = found.key.removeprefix(prefix).partition("/")
            if not inside:
                folders.update([name] if found.is_folder else [])
                yield found
            elif name not in folders:
                folders.add(name)
                yield Found(prefix + name, True, (0, 0))

    def _path(self, key: str) -> str:
        key = key.strip("/")
        return f"{self.name}/{key}" if key else self.name

    def _found(self, info: fs.FileInfo) -> Found | None:
        from pyarrow import fs

        if info.type not in (fs.FileType.File, fs.FileType.Directory):
            return None
        version = (info.size or 0, (info.mtime_ns or 0) // SECOND * SECOND)
        return Found(info.path[len(self.name) + 1 :], info.type == fs.FileType.Directory, version)


def patience() -> float:
    """Seconds for which a store that does not answer is waited for."""
    given = os.environ.get(PATIENCE)
    try:
        return DEFAULT_PATIENCE if given is None else float(given)
    except ValueError as error:
        raise StoreError(f"{PATIENCE} is no number of seconds", got=repr(given)) from error


@lru_cache(maxsize=64)
def open_bucket(scheme: str, name: str) -> Bucket:
    """The bucket, one connection a process."""
    from ser_batch.storage.connection import connect

    return Bucket(scheme, name, connect(scheme, name))


def locate(url: str | ObjectUrl) -> tuple[Bucket, str]:
    """The bucket of a URL, and the key in it."""
    scheme, name, key = url if isinstance(url, ObjectUrl) else parse_url(url)
    return open_bucket(scheme, name), key


def check_store(path: str) -> None:
    """Raise StoreError if `path` is a URL whose store is away."""
    if is_url(path):
        bucket, key = locate(path)
        bucket.check(key)
