"""A recording opened by libsndfile, from a file, a descriptor or an object store; whatever fails names the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import soundfile

from ser_batch.errors import AudioError
from ser_batch.storage.urls import is_url
from ser_batch.text import printable

if TYPE_CHECKING:
    from ser_batch.storage.objects import ObjectFile

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hz of the recordings accepted."""


@contextmanager
def opened(
    path: str | os.PathLike[str], descriptor: int | None = None
) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    """Open a recording, with the file that it is read from; every failure becomes an AudioError that names it.

    Args:
        path: of a regular file, or the URL of an object.
        descriptor: of the file already open, if `path` only names it; it is closed.

    Raises:
        AudioError: it cannot be had, or is no audio at a rate within range.
        StoreError: the store of the object is away: nothing is wrong with the recording.
    """
    name = printable(Path(path).name)
    try:
        if descriptor is None and is_url(path):
            with _from_store(cast(str, path)) as opened_object:
                yield opened_object
        else:
            with _from_disk(path, descriptor) as opened_file:
                yield opened_file
    except AudioError as error:
        raise AudioError(
            f"{name!r} {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name!r} cannot be decoded", got=error.error_string.rstrip(". ")) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{name!r} cannot be read", got=reason) from error


@contextmanager
def _from_disk(path: str | os.PathLike[str], descriptor: int | None) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    if descriptor is None:
        # Without O_NONBLOCK, opening a named pipe waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is not a regular file")
        _check_size(status.st_size)
        os.lseek(descriptor, 0, os.SEEK_SET)
        # By descriptor, since a path would let the file's ending choose the format.
        with (
            open(descriptor, "rb", buffering=0, closefd=False) as file,
            soundfile.SoundFile(descriptor, closefd=False) as sound,
        ):
            _check_rate(sound.samplerate)
            yield sound, cast(BinaryIO, file)
    finally:
        os.close(descriptor)


@contextmanager
def _from_store(url: str) -> Iterator[tuple[soundfile.SoundFile, BinaryIO]]:
    from ser_batch.storage.objects import open_object

    with open_object(url) as file:
        _check_size(file.size)
        try:
            with soundfile.SoundFile(file) as sound:
                _check_rate(sound.samplerate)
                yield sound, cast(BinaryIO, file)
        except (AudioError, soundfile.LibsndfileError):
            _check_read(file)
            raise
        _check_read(file)


def _check_read(file: ObjectFile) -> None:
    """A decoder takes a failed read for the end of the file: what it then says of the recording is not so."""
    if file.failure is not None:
        raise file.failure


def _check_size(size: int) -> None:
    if size == 0:
        raise AudioError("is empty", got="0 bytes")


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("has a rate out of range", got=f"{rate} Hz", expected=f"{MIN_RATE} to {MAX_RATE} Hz")
