"""Recordings that the tests make themselves: noise in every format, folders with a broken one among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from ser_batch.clips import ClipRule
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording

RULE = ClipRule()


FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wav8": ("WAV", "PCM_U8"),
    "wavf64": ("WAV", "DOUBLE"),
    "ulaw": ("WAV", "ULAW"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
}


def sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise below a quarter of the rate, different in each channel, (n, channels) float64."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels))
    kernel = np.hanning(9) / np.hanning(9).sum()
    return np.stack([np.convolve(noise[:, k], kernel, "same") for k in range(channels)], axis=1)


def write(path: Path, seconds: float = 4.0, rate: int = 48_000, channels: int = 1, kind: str = "wav") -> Path:
    container, subtype = FORMATS[kind]
    soundfile.write(path, sound(seconds, rate, channels), rate, format=container, subtype=subtype)
    return path


def sources(folder: Path, count: int) -> list[Recording]:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        if index % 5 == 3:
            (folder / f"{index:03}.wav").write_bytes(b"no audio")
        else:
            write(folder / f"{index:03}.wav", 0.1 + 0.01 * index)
    return list(find_recordings([folder]))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
