"""Recordings damaged in every way we could think of, made from sound ones by a seeded chance."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

HEADER = 128
ODDITIES = 18
"""What `oddities` makes that is listed."""
ENDINGS = ("wav", "flac", "mp3", "ogg", "aiff", "au", "caf", "m4a", "mp4", "webm", "wma")


def cut_off(content: bytes, chance: random.Random) -> bytes:
    """Truncated in the header, in the sound, or at the last bytes."""
    regions = (range(HEADER), range(len(content)), range(max(0, len(content) - 64), len(content)))
    return content[: min(chance.choice(chance.choice(regions)), len(content))]


def flipped(content: bytes, chance: random.Random) -> bytes:
    """Single bits turned over anywhere."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 8, 64))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def misheaded(content: bytes, chance: random.Random) -> bytes:
    """Bytes of the header replaced."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3, 10))):
        changed[chance.randrange(min(HEADER, len(changed)))] = chance.randrange(256)
    return bytes(changed)


def lying(content: bytes, chance: random.Random) -> bytes:
    """A number somewhere in the header that is huge, zero or negative: lengths, rates, channels."""
    changed = bytearray(content)
    start = chance.randrange(min(HEADER, len(changed) - 4))
    value = chance.choice((0, 1, 10_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
    changed[start : start + 4] = struct.pack(chance.choice("<>") + "I", value)
    return bytes(changed)


def spliced(content: bytes, chance: random.Random) -> bytes:
    """A stretch replaced by noise of another length."""
    start = chance.randrange(len(content))
    return content[:start] + chance.randbytes(chance.randrange(2_000)) + content[start + 1_000 :]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    """A stretch of zeros."""
    start = chance.randrange(len(content))
    length = min(chance.choice((16, 512, len(content))), len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut_off, flipped, misheaded, lying, spliced, zeroed)


def mutants(whole: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of damaged files, half of them under the ending of another format.

    Args:
        whole: sound recordings by kind.
    """
    chance = random.Random(seed)
    kinds = sorted(whole)
    for number in range(count):
        kind, damage = kinds[number % len(kinds)], DAMAGE[number // len(kinds) % len(DAMAGE)]
        ending = chance.choice(ENDINGS)
        yield f"{number:05d}-{kind}-{damage.__name__}.{ending}", damage(whole[kind], chance)


def oddities(folder: Path) -> None:
    """What is no damage but no ordinary recording either, one of each."""
    sound = np.zeros((480, 1), np.float32)
    for name, value in (("nan", np.nan), ("inf", -np.inf), ("loud", 1e30)):
        soundfile.write(folder / f"{name}.wav", np.full_like(sound, value), 48_000, subtype="FLOAT")
    for rate in (1, 10_000_000):
        soundfile.write(folder / f"{rate}-hz.wav", sound, rate)
    soundfile.write(folder / "no-frames.wav", sound[:0], 48_000)
    header = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0"
    (folder / "no-channels.wav").write_bytes(
        header + struct.pack("<HIIHH", 0, 48_000, 0, 0, 16) + b"data\x04\0\0\0abcd"
    )
    (folder / "empty.wav").touch()
    for name in (b"new\nline.wav", b"quote'\".wav", b"bad\xff.wav", b"n" * 251 + b".wav", b"\x1b[2J.wav", b" .wav"):
        (folder / os.fsdecode(name)).write_bytes(b"no audio")
    (folder / "self.wav").symlink_to(folder / "self.wav")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    (folder / "device.wav").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "folder.wav" / "up.wav").symlink_to(folder)
