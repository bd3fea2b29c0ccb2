"""Does a file hold what its header promises? Each container answers in its own way.

Measured with libsndfile 1.2.2: WAV, AIFF, AU, W64 and RF64 are quietly shortened to what the file holds (its
log keeps the promised size); FLAC and MP3 keep the promised length; Ogg takes the length of the last whole
page; CAF does not open. For an MP3 of variable bit rate without a Xing header it guesses the length from the
first frame, and reads no further.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

import soundfile

from ser_batch.errors import AudioError

TOLERANCE = 0.02
"""Seconds that a recording may fall short of its header."""
MP3_TOLERANCE = 0.05
"""Share of its length that an MP3 may fall short: without a Xing header, its length is an estimate."""
TAGS = 4096
"""Bytes that may follow the sound of an MP3 (ID3v1, APE); a twentieth of the file if that is more."""
UNKNOWN_SIZE = 0xFFFFFFFF
"""The size that a writer to a pipe (ffmpeg) puts into a WAV, into its RIFF and its data chunk alike."""
OGG_PAGE = 27 + 255 + 255 * 255
"""Largest Ogg page in bytes (RFC 3533, section 6)."""

_SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED = re.compile(rf"^RIFF : {UNKNOWN_SIZE}\b.*^ *data : {UNKNOWN_SIZE}\b", re.MULTILINE | re.DOTALL)


def check_complete(sound: soundfile.SoundFile, file: BinaryIO, decoded: int, ended: bool) -> None:
    """Raise AudioError if the file holds less than its header promises.

    Args:
        sound: the open recording; its read position is moved.
        file: it was opened from, where the decoder has left it; its position is moved.
        decoded: frames read from the start.
        ended: whether the decoder came to the end there.
    """
    promised = max(sound.frames, _promised_in_log(sound))
    slack = TOLERANCE * sound.samplerate
    if sound.format == "MP3":
        slack = max(slack, MP3_TOLERANCE * promised)
    held = decoded if ended else sound.frames
    if not ended and sound.format in ("FLAC", "MP3"):
        last = max(decoded, int(promised - slack)) - 1
        held = held if _readable_at(sound, last) else decoded
    if held < promised - slack:
        raise AudioError(
            "is truncated",
            got=f"{held / sound.samplerate:.3f} s that can be read",
            expected=f"{promised / sound.samplerate:.3f} s by its header",
        )
    if sound.format == "MP3" and ended:
        _check_read_to_end(file)
    if sound.format == "OGG" and not _ends_with_page(file):
        raise AudioError("is truncated", got="a file that ends inside an Ogg page")


def _promised_in_log(sound: soundfile.SoundFile) -> int:
    """Frames promised by a header whose size libsndfile has corrected; 0 where it has not."""
    log = sound.extra_info
    shortened = _SHORTENED.search(log)
    if not shortened or _STREAMED.search(log):
        return 0
    promised, held = (int(size) for size in shortened.groups())
    return int(sound.frames * promised / held) if held else 0


def _readable_at(sound: soundfile.SoundFile, frame: int) -> bool:
    try:
        sound.seek(frame)
        return len(sound.read(1, "float32")) == 1
    except soundfile.LibsndfileError:
        return False


def _check_read_to_end(file: BinaryIO) -> None:
    read = file.tell()
    size = file.seek(0, os.SEEK_END)
    unread = size - read
    if unread > max(TAGS, size * MP3_TOLERANCE):
        raise AudioError(
            "is an MP3 that cannot be read to its end",
            got=f"{unread} of {size} bytes left over",
            remedy="It is damaged, or of variable bit rate without a Xing header: write it anew.",
        )


def _ends_with_page(file: BinaryIO) -> bool:
    """Whether the last Ogg page that begins in the file also ends in it (RFC 3533, section 6)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_PAGE))
    tail = b"".join(iter(lambda: file.read(OGG_PAGE), b""))
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
