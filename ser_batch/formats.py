"""What audio looks like from outside: the endings of its files, and their first bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ser_batch.text import printable

ENDINGS = frozenset(
    (
        *("aa3", "aac", "ac3", "adts", "aif", "aifc", "aiff", "alac", "amr", "ape", "asf", "au", "avr", "awb", "bwf"),
        *("caf", "dff", "dsd", "dsf", "dts", "dtshd", "eac3", "ec3", "f4a", "f4b", "flac", "gsm", "ircam", "m2a"),
        *("m4a", "m4b", "m4p", "m4r", "mka", "mp1", "mp2", "mp3", "mp4a", "mpa", "mpc", "mpga", "mp+", "mpp", "nist"),
        *("oga", "ogg", "oma", "opus", "pvf", "qcp", "qoa", "ra", "ram", "rf64", "shn", "sln", "snd", "sph", "spx"),
        *("tak", "tta", "voc", "vox", "w64", "wav", "wave", "weba", "wma", "wv"),
        *("3g2", "3ga", "3gp", "3gpp", "avi", "divx", "f4v", "flv", "m1v", "m2t", "m2ts", "m2v", "m4v", "mkv"),
        *("mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "ogx", "qt", "rm", "rmvb", "vob"),
        *("webm", "wmv", "wtv", "xvid"),
    )
)
"""Of file names (lower case) that are taken for recordings inside a folder: audio, and video for its sound."""
OTHERS = frozenset(
    (
        *("csv", "eaf", "htm", "html", "ini", "json", "jsonl", "lab", "log", "lst", "m3u", "m3u8", "md", "ndjson"),
        *("parquet", "py", "rst", "rttm", "srt", "stm", "textgrid", "toml", "trs", "tsv", "txt", "vtt", "xml", "yaml"),
        *("yml", "bmp", "gif", "jpeg", "jpg", "pdf", "png", "svg", "tif", "tiff", "webp", "doc", "docx", "odt", "ppt"),
        *("pptx", "xls", "xlsx", "7z", "bz2", "gz", "rar", "tar", "tgz", "xz", "zip", "zst", "ckpt", "h5", "npy"),
        *("npz", "onnx", "pkl", "pt", "pth", "safetensors", "db", "sqlite", "c", "cpp", "h", "ipynb", "js", "sh"),
    )
)
"""Of files that are not even looked into; what has another ending, or none, is taken if its content says audio."""
NAMED = 8
"""Endings that are listed."""
HEAD = 16_384
"""Bytes that tell what a file is: several frames of MPEG audio or AC-3."""
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
    *((0, word, "mpc") for word in (b"MP+\x07", b"MP+\x17", b"MPCK")),
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
    *((0, word, "oma") for word in (b"EA3\x01", b"EA3\x02", b"EA3\x03")),
)
"""(offset, bytes, kind)."""
IMAGES = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp2 ", b"jpx ")
"""Brands of the ISO base media format that are pictures."""
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


def is_named_as_audio(name: str) -> bool:
    """Whether the ending of a file's name is that of audio or video."""
    return ending_of(name) in ENDINGS


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, without its dot; empty: it has none."""
    return os.path.splitext(os.path.basename(name))[1].lower().removeprefix(".")  # noqa: PTH119, PTH122


def described(left_out: Mapping[str, int]) -> str:
    """How many files have which endings, the most frequent first: "3 .txt, 1 .json and 2 others"."""
    ordered = sorted(left_out.items(), key=lambda each: (-each[1], each[0]))
    named = [
        f"{count} {'.' + printable(ending) if ending else 'without an ending'}" for ending, count in ordered[:NAMED]
    ]
    others = sum(count for _, count in ordered[NAMED:])
    return ", ".join(named) + (f" and {others} others" if others else "")


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
    for kind, length in (("adts", _adts_frame), ("mpeg audio", mpeg_frame)):
        if _repeats(head, length):
            return kind
    return ""


def _refined(kind: str, head: bytes) -> str:
    """The same, less what only begins alike: pictures, text, MIDI."""
    if kind == "wav":
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12], "")
    if kind == "aiff":
        return "aiff" if head[8:12] in (b"AIFF", b"AIFC") else ""
    if kind == "ape":
        return "ape" if 3_000 < int.from_bytes(head[4:6], "little") < 5_000 else ""
    if kind == "mov" and head[4:8] == b"ftyp":
        return "" if head[8:12] in IMAGES else "mov"
    if kind == "mov" and head[4:8] in (b"free", b"skip", b"wide", b"pnot"):
        return "mov" if any(word in head for word in (b"moov", b"mdat", b"ftyp")) else ""
    return kind


def _repeats(head: bytes, length: Callable[[bytes], int]) -> bool:
    """Whether frames follow each other near the start: four of them, each as long as it says."""
    for first in mpeg_syncs(head[:4096]):
        at, count = first, 0
        while size := length(head[at : at + 7]):
            at, count = at + size, count + 1
            if count == 4 or (count > 1 and at >= len(head)):
                return True
    return False


def mpeg_syncs(head: bytes) -> list[int]:
    """Where eleven bits are set: frames of MPEG audio and of ADTS begin so."""
    found, at = [], head.find(b"\xff")
    while 0 <= at < len(head) - 1:
        if head[at + 1] >= 0xE0:
            found.append(at)
        at = head.find(b"\xff", at + 1)
    return found


def mpeg_frame(header: bytes) -> int:
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
