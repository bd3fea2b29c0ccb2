"""Recordings that the tests make themselves in what phones, browsers and telephone systems write."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.audio.resampler import AudioResampler

from support.recordings import sound, write


class Coding(NamedTuple):
    """How PyAV writes a kind."""

    container: str
    codec: str
    rate: int = 48_000
    bit_rate: int | None = None
    excess: float = 0.0
    """Seconds that a decoder gives too many: padding that the container does not tell of."""
    correlation: float = 0.9
    """At least, of what is read with what was written."""


ENCODED = {
    "m4a": Coding("ipod", "aac"),
    "alac": Coding("ipod", "alac"),
    "mp4": Coding("mp4", "aac", 44_100),
    "mov": Coding("mov", "pcm_s16le"),
    "3gp": Coding("3gp", "libopencore_amrnb", 8_000, correlation=0.3, excess=0.03),
    "adts": Coding("adts", "aac", 44_100, excess=0.05),
    "mka": Coding("matroska", "flac"),
    "mkv-opus": Coding("matroska", "libopus"),
    "webm": Coding("webm", "libopus"),
    "amr": Coding("amr", "libopencore_amrnb", 8_000, correlation=0.3, excess=0.03),
    "wma": Coding("asf", "wmav2", 44_100, 96_000, excess=0.1),
    "ac3": Coding("ac3", "ac3", excess=0.04),
    "eac3": Coding("eac3", "eac3", excess=0.04),
    "wv": Coding("wv", "wavpack"),
    "tta": Coding("tta", "tta"),
    "ogg-flac": Coding("ogg", "flac"),
    "wav-g722": Coding("wav", "g722", 16_000),
    "wav-g726": Coding("wav", "g726", 8_000, correlation=0.8),
    "wav-yamaha": Coding("wav", "adpcm_yamaha", excess=0.03),
    "wav-aac": Coding("wav", "aac", excess=0.06),
    "wav-mp3": Coding("wav", "libmp3lame", 44_100, excess=0.1),
    "avi": Coding("avi", "libmp3lame", 44_100, excess=0.1),
    "ts": Coding("mpegts", "aac", excess=0.05),
    "flv": Coding("flv", "aac", 44_100, excess=0.05),
    "mpg": Coding("mpeg", "mp2", excess=0.05),
    "caf-alac": Coding("caf", "alac", excess=0.1),
}
"""Kinds that libsndfile refuses or reads wrongly."""


def encode(
    path: Path,
    kind: str,
    seconds: float = 4.0,
    *,
    channels: int = 1,
    samples: np.ndarray | None = None,
    video: bool = False,
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write `sound(seconds, …)`, or the samples given (n, channels), as `ENCODED[kind]`.

    Args:
        video: write a stream of pictures before that of the sound.
        options: go to the container.
    """
    if samples is not None or video or codec_options or options:
        written = sound(seconds, ENCODED[kind].rate, channels) if samples is None else samples
        return _write(path, kind, written, video, codec_options, options)
    path.write_bytes(_content(kind, seconds, channels))
    return path


@cache
def _content(kind: str, seconds: float, channels: int) -> bytes:
    """What is written time and again, encoded once."""
    with tempfile.TemporaryDirectory() as folder:
        samples = sound(seconds, ENCODED[kind].rate, channels)
        return _write(Path(folder, "recording"), kind, samples, False, None, {}).read_bytes()


def _write(
    path: Path, kind: str, samples: np.ndarray, video: bool, codec_options: dict[str, str] | None, options: Any
) -> Path:
    coding, written = ENCODED[kind], samples.astype(np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[written.shape[1]]
    with av.open(str(path), "w", format=coding.container, options=options) as container:
        pictures = _picture_stream(container, "flv" if kind == "flv" else "mpeg4") if video else None
        stream: Any = container.add_stream(coding.codec, rate=coding.rate, options=codec_options, layout=layout)
        if coding.bit_rate:
            stream.bit_rate = coding.bit_rate
        formats = [each.name for each in stream.codec_context.codec.audio_formats or ()]
        if formats:
            stream.format = next((name for name in ("fltp", "s16", "s16p") if name in formats), formats[0])
        if pictures is not None:
            for number in range(round(len(written) / coding.rate * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 256, np.uint8), format="rgb24")
                frame.pts = number
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        for frame in _frames(written, stream, layout):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _picture_stream(container: Any, codec: str) -> Any:
    stream = container.add_stream(codec, rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, 10)
    return stream


def _frames(samples: np.ndarray, stream: Any, layout: str) -> Iterator[Any]:
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    size = stream.codec_context.frame_size or None
    resampler = AudioResampler(format=stream.format.name, layout=layout, rate=stream.rate, frame_size=size)
    for start in range(0, len(samples), 1024):
        block = np.ascontiguousarray(samples[start : start + 1024]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
        frame.sample_rate, frame.pts = stream.rate, start
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def write_flac(path: Path, samples: np.ndarray, rate: int, bits: int, *, length: bool = True) -> Path:
    """Write integer samples (n,) of any width as FLAC (RFC 9639), stored and not compressed.

    Args:
        length: whether the header says how many samples there are.
    """
    size = 4096
    info = struct.pack(">HH", size, size) + bytes(6)
    info += (rate << 44 | (bits - 1) << 36 | (len(samples) if length else 0)).to_bytes(8, "big") + bytes(16)
    content = bytearray(b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info)
    for number, start in enumerate(range(0, len(samples), size)):
        block = samples[start : start + size]
        # Fixed block size, its length in 16 bits, rate and width as in the header, one channel.
        header = b"\xff\xf8" + bytes([0b0111_0000, 0]) + _utf8(number) + struct.pack(">H", len(block) - 1)
        header += bytes([_crc(header, 8, 0x07)])
        text = "00000010" + "".join(format(int(value) & (1 << bits) - 1, f"0{bits}b") for value in block)
        text += "0" * (-len(text) % 8)
        frame = header + int(text, 2).to_bytes(len(text) // 8, "big")
        content += frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")
    path.write_bytes(content)
    return path


def _utf8(number: int) -> bytes:
    return chr(number).encode()


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    crc, top, table = 0, 1 << bits - 1, _crc_table(bits, polynomial)
    for byte in data:
        crc = (crc << 8) & (2 * top - 1) ^ table[crc >> bits - 8 ^ byte]
    return crc


@cache
def _crc_table(bits: int, polynomial: int) -> list[int]:
    """What each byte makes of a checksum of 0."""
    table, top = [], 1 << bits - 1
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & (2 * top - 1)
        table.append(crc)
    return table


def write_dsf(path: Path, samples: np.ndarray, rate: int = 2_822_400) -> Path:
    """Write samples (n,) at `rate` Hz as one-bit sound (Sony's DSF): a sigma-delta modulator of the second order."""
    bits = np.zeros(len(samples), np.uint8)
    first = second = 0.0
    for number, value in enumerate(samples):
        out = 1.0 if second >= 0 else -1.0
        first += value - out
        second += first - out
        bits[number] = out > 0
    packed = np.packbits(bits, bitorder="little").tobytes()
    data = packed + bytes(-len(packed) % 4096)
    chunk = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, rate, 1, len(bits), 4096, 0)
    body = chunk + struct.pack("<4sQ", b"data", 12 + len(data)) + data
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(body), 0) + body)
    return path


def write_aac_in_wav(path: Path, seconds: float) -> Path:
    """Write AAC in frames of ADTS inside WAV, as recorders of broadcasts do (format tag 0x1600)."""
    frames = encode(path, "adts", seconds).read_bytes()
    form = struct.pack("<HHIIHHH", 0x1600, 1, 44_100, 9_000, 1, 16, 0)
    chunks = struct.pack("<4sI", b"fmt ", len(form)) + form + struct.pack("<4sI", b"data", len(frames)) + frames
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)
    return path


def write_chained(path: Path, *seconds: float, kind: str = "ogg", renumber: bool = True) -> Path:
    """Write Ogg streams one after the other (RFC 3533, section 4).

    Args:
        renumber: give each a serial number of its own, as it must have; else all have the same.
    """
    links = b""
    for number, each in enumerate(seconds):
        link = write(path, each, kind=kind).read_bytes()
        links += _renumbered(link, number + 1) if renumber else link
    path.write_bytes(links)
    return path


def _renumbered(ogg: bytes, serial: int) -> bytes:
    changed = b""
    at = 0
    while at < len(ogg):
        segments = ogg[at + 26]
        length = 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        page = bytearray(ogg[at : at + length])
        page[14:18] = struct.pack("<I", serial)
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", _crc(bytes(page), 32, 0x04C11DB7))
        changed += page
        at += length
    return changed
