"""What kind of audio a file holds, told from its first bytes, and which decoder reads that kind best.

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

FORGIVEN = 512
"""Bytes that may be missing at the end of a WAV: a block."""
HEAD = 16_384
"""Bytes that tell what a file is: several frames of MPEG audio or AC-3."""
WHOLE_OGG = 4 << 20
"""Bytes of an Ogg file up to which all of it is looked through for a second stream."""
UNKNOWN_SIZES = frozenset(
    size - header for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000) for header in (0, 8, 36, 44)
)
"""Sizes that writers to a pipe put into a header, at times less what it takes itself: they cannot go back to it."""
OGG_PAGE = 27 + 255 + 255 * 255
"""Largest Ogg page in bytes (RFC 3533, section 6)."""

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    *((0, word, "wav") for word in (b"RIFF", b"RIFX", b"RF64", b"BW64")),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"FORM", "aiff"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"Creative Voice File", "voc"),
    (0, b"NIST_1A", "nist"),
    (0, b"2BIT", "avr"),
    *((0, word, "ircam") for word in (b"\x64\xa3\x01\x00", b"\x00\x01\xa3\x64", b"\x64\xa3\x02\x00")),
    *((0, word, "pvf") for word in (b"PVF1\n", b"PVF2\n")),
    (4, b"ftyp", "mov"),
    *((4, word, "mov") for word in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (0, b"MAC ", "ape"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "iff"),
    (0, b"#!AMR", "amr"),
    *((0, word, "mpc") for word in (b"MP+", b"MPCK")),
    (0, b"tBaK", "tak"),
    (0, b"ajkg", "shn"),
    (0, b".RMF", "rm"),
    (0, b".ra\xfd", "rm"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"DTSHDHDR", "dtshd"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"nut/multimedia container", "nut"),
    (0, b"\xb7\xd8\x00\x20\x37\x49\xda\x11", "wtv"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
    (0, b"qoaf", "qoa"),
    (0, b"EA3", "oma"),
)
"""(offset, bytes, kind)."""
IMAGES = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp2 ", b"jpx ")
"""Brands of the ISO base media format that are pictures."""
SNDFILE_WAV = (0x0001, 0x0002, 0x0003, 0x0006, 0x0007, 0x0011, 0x0031, 0xFFFE)
"""Codings of WAV that libsndfile reads well: PCM, floats, A-law, µ-law, the common ADPCM, GSM."""
SNDFILE = ("wav", "flac", "ogg", "aiff", "au", "caf", "w64", "voc", "nist", "avr", "ircam", "pvf", "mpeg audio", "")
"""Kinds that libsndfile is asked for first; the empty one is unknown."""
MPEG_RATES = (44_100, 48_000, 32_000)
MPEG_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG version, layer) -> kbit/s by index (ISO 11172-3 and 13818-3)."""


def identify(head: bytes) -> str:
    """The kind of audio or video that a file begins with, as in `MAGIC`; empty: none that is known."""
    for offset, word, kind in MAGIC:
        if head.startswith(word, offset):
            return _refined(kind, head)
    if head.startswith(b"ID3"):
        return "mpeg audio"
    if any(head[first : first + 3 * size + 1 : size] == b"\x47" * 4 for first, size in ((0, 188), (4, 192))):
        return "mpegts"
    if head.startswith(b"\x0b\x77") and head.find(b"\x0b\x77", 64) > 0:
        return "ac3"
    for kind, length in (("adts", _adts_frame), ("mpeg audio", _mpeg_frame)):
        if _repeats(head, length):
            return kind
    return ""


def _refined(kind: str, head: bytes) -> str:
    """The same, less what only begins alike: pictures, text, MIDI."""
    if kind == "wav":
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12], "")
    if kind == "aiff":
        return "aiff" if head[8:12] in (b"AIFF", b"AIFC") else ""
    if kind == "mov" and head[4:8] == b"ftyp":
        return "" if head[8:12] in IMAGES else "mov"
    if kind == "mov" and head[4:8] in (b"free", b"skip", b"wide", b"pnot"):
        return "mov" if any(word in head for word in (b"moov", b"mdat", b"ftyp")) else ""
    return kind


def prefers_ffmpeg(file: BinaryIO, kind: str, head: bytes) -> bool:
    """Whether FFmpeg is asked first; the file's position is moved."""
    if kind not in SNDFILE:
        return True
    if kind == "wav":
        return _wav_coding(head) not in SNDFILE_WAV
    if kind == "flac":
        # STREAMINFO (RFC 9639, section 8.2): bits per sample less one in five bits, then samples in 36.
        bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1 if len(head) > 25 else 16
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
    first = next((at for at in _syncs(frames) if _mpeg_frame(frames[at : at + 4])), 0)
    return any(word in frames[first : first + 192] for word in (b"Xing", b"Info", b"VBRI"))


def _repeats(head: bytes, length: object) -> bool:
    """Whether frames follow each other near the start: four of them, each as long as it says."""
    for first in _syncs(head[:4096]):
        at, count = first, 0
        while size := length(head[at : at + 7]):  # type: ignore[operator]
            at, count = at + size, count + 1
            if count == 4 or (count > 1 and at >= len(head)):
                return True
    return False


def _syncs(head: bytes) -> list[int]:
    """Where eleven bits are set: frames of MPEG audio and of ADTS begin so."""
    found, at = [], head.find(b"\xff")
    while 0 <= at < len(head) - 1:
        if head[at + 1] >= 0xE0:
            found.append(at)
        at = head.find(b"\xff", at + 1)
    return found


def _mpeg_frame(header: bytes) -> int:
    """Bytes of the frame of MPEG audio with this header (ISO 11172-3, section 2.4.1.3); 0: it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return 0
    first = version == 3
    hertz = MPEG_RATES[rate] // (1 if first else 2 if version == 2 else 4)
    bits = MPEG_KBITS[1 if first else 2, layer][kbits - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (144 if first or layer == 2 else 72) * bits // hertz + padding


def _adts_frame(header: bytes) -> int:
    """Bytes of the ADTS frame with this header (ISO 13818-7, section 6.2); 0: it is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
