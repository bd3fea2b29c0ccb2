"""Recordings that libsndfile decodes, and whether they hold what their headers promise.

Measured with libsndfile 1.2.2: WAV, AIFF, AU, W64 and RF64 are quietly shortened to what the file holds (its log
keeps the promised size); FLAC and MP3 keep the promised length; Ogg takes the length of the last whole page; CAF does
not open.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

import soundfile

from ser_batch.audio.container import UNKNOWN_SIZES, ends_with_page
from ser_batch.clips import Waveform
from ser_batch.errors import AudioError

TOLERANCE = 0.02
"""Seconds that a recording may fall short of its header."""
MP3_TOLERANCE = 0.05
"""Share of its length that an MP3 may fall short: encoders count their padding, or do not."""
TAGS = 4096
"""Bytes that may follow the sound of an MP3 (ID3v1, APE); a twentieth of the file if that is more."""

_SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)


class LibsndfileSound:
    """A recording open in libsndfile; see `sound.Sound`.

    Args:
        file: positioned anywhere; it stays the caller's.
        descriptor: of the file, if it is one: libsndfile then reads it by itself.

    Raises:
        soundfile.LibsndfileError: libsndfile does not read it.
    """

    decoder = "libsndfile"

    def __init__(self, file: BinaryIO, descriptor: int | None) -> None:
        file.seek(0)
        self._file = file
        # By descriptor, since a path would let the file's ending choose the format.
        self._sound = soundfile.SoundFile(file if descriptor is None else descriptor, closefd=False)
        self.format: str = self._sound.format
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.frames: int | None = self._sound.frames

    def read(self, frames: int) -> Waveform:
        """See `sound.Sound.read`."""
        decoded: Waveform = self._sound.read(frames, "float32", always_2d=True)
        return decoded

    def seek(self, frame: int) -> None:
        """See `sound.Sound.seek`."""
        self._sound.seek(min(frame, self._sound.frames))

    def length(self) -> int:
        """See `sound.Sound.length`."""
        return int(self._sound.frames)

    def check_complete(self, decoded: int, ended: bool) -> None:
        """See `sound.Sound.check_complete`."""
        if ended:
            # Where the decoder has left the file; for MP3 and Ogg, that is what it made of it.
            self._check_read_to_end()
        frames: int = self._sound.frames
        promised = max(frames, self._promised_in_log())
        slack = TOLERANCE * self.rate
        if self.format == "MP3":
            slack = max(slack, MP3_TOLERANCE * promised)
        held = decoded if ended else frames
        if not ended and self.format in ("FLAC", "MP3"):
            last = max(decoded, int(promised - slack)) - 1
            held = held if self._is_readable_at(last) else decoded
        if held < promised - slack:
            raise AudioError(
                "is truncated",
                got=f"{held / self.rate:.3f} s that can be read",
                expected=f"{promised / self.rate:.3f} s by its header",
            )
        if self.format == "OGG" and not ends_with_page(self._file):
            raise AudioError("is truncated", got="a file that ends inside an Ogg page")

    def close(self) -> None:
        """Let go of the recording, and not of its file."""
        self._sound.close()

    def _promised_in_log(self) -> int:
        """Frames promised by a header whose size libsndfile has corrected; 0 where it has not."""
        shortened = _SHORTENED.search(self._sound.extra_info)
        if not shortened:
            return 0
        promised, held = (int(size) for size in shortened.groups())
        return int(self._sound.frames * promised / held) if held and promised not in UNKNOWN_SIZES else 0

    def _is_readable_at(self, frame: int) -> bool:
        try:
            self._sound.seek(frame)
            return len(self._sound.read(1, "float32")) == 1
        except soundfile.LibsndfileError:
            return False

    def _check_read_to_end(self) -> None:
        if self.format not in ("MP3", "OGG"):
            return
        read = self._file.tell()
        size = self._file.seek(0, os.SEEK_END)
        unread = size - read
        if unread > max(TAGS, size * MP3_TOLERANCE):
            raise AudioError(
                f"is {'an MP3' if self.format == 'MP3' else 'an Ogg file'} that cannot be read to its end",
                got=f"{unread} of {size} bytes left over",
                remedy="It is damaged, or several streams in one file: write it anew.",
            )
