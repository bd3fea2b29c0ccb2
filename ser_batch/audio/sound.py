"""A recording open for reading, whichever decoder reads it: libsndfile for what it reads well, else FFmpeg."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import soundfile

from ser_batch.audio.container import prefers_ffmpeg, read_all
from ser_batch.audio.libsndfile import LibsndfileSound
from ser_batch.clips import Waveform
from ser_batch.errors import AudioError
from ser_batch.files import open_to_read
from ser_batch.formats import HEAD, identify
from ser_batch.storage.urls import is_url
from ser_batch.text import printable

if TYPE_CHECKING:
    from ser_batch.storage.objects import ObjectFile

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hz of the recordings accepted."""
MAX_DSD_RATE = 2_822_400
"""Hz at which one-bit recordings are decoded, at most: an eighth of the rate of their bits."""


class Sound(Protocol):
    """A recording open for reading; frames are counted from its start."""

    decoder: str
    """Which decoder reads it: "libsndfile", "ffmpeg"."""
    format: str
    """The container, by the decoder's name for it."""
    rate: int
    """Hz."""
    channels: int
    frames: int | None
    """How many there are, as the header says; None: it does not."""

    def read(self, frames: int) -> Waveform:
        """The next frames, (n, channels) float32; fewer than asked for only at the end.

        Raises:
            AudioError: they cannot be decoded.
            soundfile.LibsndfileError: the same.
        """

    def seek(self, frame: int) -> None:
        """Let the next `read` begin at a frame; past the end, it reads nothing."""

    def length(self) -> int:
        """How many frames there are; the read position is lost. Where the header does not say, they are counted."""

    def check_complete(self, decoded: int, ended: bool) -> None:
        """Raise AudioError if the file holds less than its header promises; the read position is lost.

        Args:
            decoded: frames read from the start.
            ended: whether the decoder came to the end there.
        """

    def close(self) -> None:
        """Let go of the recording, and not of its file."""


@contextmanager
def open_sound(path: str | os.PathLike[str], descriptor: int | None = None) -> Iterator[Sound]:
    """Open a recording; every failure becomes an AudioError that names its path.

    Args:
        path: of a regular file, or the URL of an object.
        descriptor: of the file already open, if `path` only names it; it is closed.

    Raises:
        AudioError: it cannot be had, or is no audio at a rate within range.
        StoreError: the store of the object is away: nothing is wrong with the recording.
    """
    name = printable(os.fspath(path))
    try:
        if descriptor is None and is_url(path):
            with _from_store(cast(str, path)) as sound:
                yield sound
        else:
            with _from_disk(path, descriptor) as sound:
                yield sound
    except AudioError as error:
        raise AudioError(error.what, path=name, got=error.got, expected=error.expected, remedy=error.remedy) from error
    except soundfile.LibsndfileError as error:
        raise AudioError("cannot be decoded", path=name, got=_reason(error)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError("cannot be read", path=name, got=reason) from error


@contextmanager
def _from_disk(path: str | os.PathLike[str], descriptor: int | None) -> Iterator[Sound]:
    if descriptor is None:
        descriptor = open_to_read(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is not a regular file")
        _check_size(status.st_size)
        with (
            open(descriptor, "rb", buffering=0, closefd=False) as file,
            # On Windows a descriptor means something to one C library, and libsndfile may have another.
            closing(_decoder(cast(BinaryIO, file), None if sys.platform == "win32" else descriptor)) as sound,
        ):
            yield sound
    finally:
        os.close(descriptor)


@contextmanager
def _from_store(url: str) -> Iterator[Sound]:
    from ser_batch.storage.objects import open_object

    with open_object(url) as file:
        _check_size(file.size)
        try:
            with closing(_decoder(cast(BinaryIO, file), None)) as sound:
                yield sound
        except (AudioError, soundfile.LibsndfileError):
            _check_read(file)
            raise
        _check_read(file)


def _decoder(file: BinaryIO, descriptor: int | None) -> Sound:
    """The decoder that reads the file, which is asked by what the file holds and never by its name."""
    file.seek(0)
    head = read_all(file, HEAD)
    kind = identify(head)
    refusal = ""
    if not prefers_ffmpeg(file, kind, head):
        try:
            sound: Sound = LibsndfileSound(file, descriptor)
            _check_rate(sound.rate, MAX_RATE)
            if sound.frames:
                return sound
            # There may be more than the header says: nothing, where it was written to a pipe.
            sound.close()
        except soundfile.LibsndfileError as error:
            refusal = _reason(error)
    from ser_batch.audio.ffmpeg import FfmpegSound

    try:
        decoded = FfmpegSound(file, kind)
    except AudioError as error:
        if not refusal or error.what != "cannot be decoded":
            raise
        raise AudioError(error.what, got=f"{refusal} (libsndfile), {error.got} (FFmpeg)") from error
    _check_rate(decoded.rate, MAX_DSD_RATE if decoded.is_one_bit else MAX_RATE)
    return decoded


def _reason(error: soundfile.LibsndfileError) -> str:
    reason: str = error.error_string
    return reason.rstrip(". ")


def _check_read(file: ObjectFile) -> None:
    """A decoder takes a failed read for the end of the file: what it then says of the recording is not so."""
    if file.failure is not None:
        raise file.failure


def _check_size(size: int) -> None:
    if size == 0:
        raise AudioError("is empty", got="0 bytes")


def _check_rate(rate: int, most: int) -> None:
    if not MIN_RATE <= rate <= most:
        raise AudioError("has a rate out of range", got=f"{rate} Hz", expected=f"{MIN_RATE} to {most} Hz")
