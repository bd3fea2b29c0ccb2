"""Which decoder reads a file best, and whether it holds what its header promises: what its bytes tell of both.

libsndfile is the faster one, and stays the way for what it reads well. Measured with libsndfile 1.2.2, it refuses
FLAC of 12 and 20 bits or of unknown length and what it has no decoder for; and it reads wrongly an MP3 of variable
bit rate without a Xing header (in part), MP3 inside WAV (it promises more than it reads) and chained Ogg (the first
link alone). FFmpeg reads these.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from ser_batch.errors import AudioError
from ser_batch.formats import mpeg_frame, mpeg_syncs

FORGIVEN = 512
"""Bytes that may be missing at the end of a WAV: a block."""
WHOLE_OGG = 4 << 20
"""Bytes of an Ogg file up to which all of it is looked through for a second stream."""
UNKNOWN_SIZES = frozenset(
    size - header for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000) for header in (0, 8, 36, 44)
)
"""Sizes that writers to a pipe put into a header, at times less what it takes itself: they cannot go back to it."""
OGG_PAGE = 27 + 255 + 255 * 255
"""Largest Ogg page in bytes (RFC 3533, section 6)."""

SNDFILE_WAV = (0x0001, 0x0002, 0x0003, 0x0006, 0x0007, 0x0011, 0x0031, 0xFFFE)
"""Codings of WAV that libsndfile reads well: PCM, floats, A-law, µ-law, the common ADPCM, GSM."""
SNDFILE = ("wav", "flac", "ogg", "aiff", "au", "caf", "w64", "voc", "nist", "avr", "ircam", "pvf", "mpeg audio", "")
"""Kinds that libsndfile is asked for first; the empty one is unknown."""


def prefers_ffmpeg(file: BinaryIO, kind: str, head: bytes) -> bool:
    """Whether FFmpeg is asked first; the file's position is moved."""
    if kind not in SNDFILE:
        return True
    if kind == "wav":
        return _wav_coding(head) not in SNDFILE_WAV
    if kind == "flac" and len(head) >= 26:
        # STREAMINFO (RFC 9639, section 8.2): bits per sample less one in five bits, then samples in 36.
        bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1
        return bits not in (8, 16, 24) or not (head[21] & 15 or any(head[22:26]))
    if kind == "ogg":
        return is_chained(file, head)
    if kind == "mpeg audio":
        return not _has_length(_after_id3(file, head))
    return False


def _wav_coding(head: bytes) -> int:
    """The format tag of the chunk `fmt `; that of PCM where there is none in reach."""
    order = "big" if head.startswith(b"RIFX") else "little"
    chunk = head.find(b"fmt ", 12)
    return int.from_bytes(head[chunk + 8 : chunk + 10], order) if chunk > 0 else 1  # type: ignore[arg-type]


def check_wav_size(file: BinaryIO, head: bytes) -> None:
    """Raise AudioError if the chunk `data` of a WAV is longer than what is left of the file."""
    order = "big" if head.startswith(b"RIFX") else "little"
    chunk = head.find(b"data", 12)
    size = int.from_bytes(head[chunk + 4 : chunk + 8], order)  # type: ignore[arg-type]
    held = file.seek(0, os.SEEK_END) - chunk - 8
    if chunk > 0 and size not in UNKNOWN_SIZES and size > held + FORGIVEN and not head.startswith((b"RF64", b"BW64")):
        raise AudioError("is truncated", got=f"{held} bytes of sound", expected=f"{size} by its header")


def is_chained(file: BinaryIO, head: bytes) -> bool:
    """Whether an Ogg file begins a stream more than once: chained (RFC 3533, section 4), or sound beside pictures.

    A large file is told by its last page alone, unless the links share their serial number, which RFC 3533 forbids.
    """
    size = file.seek(0, os.SEEK_END)
    if size <= WHOLE_OGG:
        file.seek(0)
        return read_all(file).count(b"OggS\x00\x02") > 1
    file.seek(size - OGG_PAGE)
    tail = read_all(file)
    page = tail.rfind(b"OggS\x00")
    return head.count(b"OggS\x00\x02") > 1 or (page >= 0 and tail[page + 14 : page + 18] != head[14:18])


def ends_with_page(file: BinaryIO) -> bool:
    """Whether the last Ogg page that begins in the file also ends in it (RFC 3533, section 6)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_PAGE))
    tail = read_all(file)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def read_all(file: BinaryIO, limit: int | None = None) -> bytes:
    """The rest of a file, or `limit` bytes of it: raw files give what they have, a block at a time."""
    buffer = io.BytesIO()
    while limit is None or buffer.tell() < limit:
        block = file.read(OGG_PAGE if limit is None else limit - buffer.tell())
        if not block:
            break
        buffer.write(block)
    return buffer.getvalue()


def _after_id3(file: BinaryIO, head: bytes) -> bytes:
    """The first bytes after the tag that an MP3 may begin with (ID3v2: four times seven bits of length)."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return head
    length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(10 + length)
    return read_all(file, 4096)


def _has_length(frames: bytes) -> bool:
    """Whether the first frame of MPEG audio says how many there are (Xing's, LAME's or Fraunhofer's header)."""
    first = next((at for at in mpeg_syncs(frames) if mpeg_frame(frames[at : at + 4])), 0)
    return any(word in frames[first : first + 192] for word in (b"Xing", b"Info", b"VBRI"))
