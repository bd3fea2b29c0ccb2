"""The same recordings in several formats, one folder a format, as archives have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
import soxr

from bench.targets import readable
from ser_batch.audio.recording import read_recording
from ser_batch.clips import Waveform
from ser_batch.errors import OutputError
from ser_batch.recordings.sources import Source, find_audio

RATE = 48_000
"""Hz that recordings are read at, before a format's own rate."""
BLOCK = 1 << 15
"""Samples handed to an encoder at a time: libvorbis keeps a whole write on the stack, and long ones overflow it
(https://github.com/xiph/vorbis/issues/99)."""


@dataclass(frozen=True)
class Format:
    """How recordings are written; the names of container and encoding are those of soundfile."""

    name: str
    """Of its folder, too."""
    container: str
    encoding: str
    rate: int
    """Hz."""
    ending: str

    def write(self, path: Path, samples: Waveform) -> None:
        """Write mono `samples` (n,) at this format's rate; OutputError if it cannot be."""
        try:
            with soundfile.SoundFile(path, "w", self.rate, 1, self.encoding, format=self.container) as sound:
                for start in range(0, len(samples), BLOCK):
                    sound.write(samples[start : start + BLOCK])
        except (OSError, soundfile.LibsndfileError) as error:
            raise OutputError(f"{path} cannot be written as {self.name}", got=error) from error


FORMATS = (
    Format("FLAC 48 kHz 16 bit", "FLAC", "PCM_16", 48_000, "flac"),
    Format("WAV 48 kHz 16 bit", "WAV", "PCM_16", 48_000, "wav"),
    Format("WAV 16 kHz 16 bit", "WAV", "PCM_16", 16_000, "wav"),
    Format("MP3 48 kHz", "MP3", "MPEG_LAYER_III", 48_000, "mp3"),
    Format("Ogg Opus 48 kHz", "OGG", "OPUS", 48_000, "opus"),
    Format("Ogg Vorbis 48 kHz", "OGG", "VORBIS", 48_000, "ogg"),
)


def check_formats() -> tuple[tuple[Format, ...], dict[str, str]]:
    """The formats that can be written here, and why others cannot."""
    able = tuple(each for each in FORMATS if soundfile.check_format(each.container, each.encoding))
    reason = f"libsndfile {soundfile.__libsndfile_version__} does not write it"
    return able, {each.name: reason for each in FORMATS if each not in able}


def transcode(
    sources: Sequence[Source], formats: Sequence[Format], folder: Path, limit: int
) -> dict[str, list[Source]]:
    """Write the first `limit` readable recordings, whole and mixed down to mono, in each of `formats` under `folder`.

    Returns:
        Name of the format -> its recordings, in the order of `sources`, as lossy encoders leave them at their usual
        quality.

    Raises:
        InputError: none can be read.
        OutputError: a file cannot be written.
    """
    for each in formats:
        (folder / each.name).mkdir()
    recordings = readable(sources, lambda path: read_recording(path, RATE).samples, limit)
    for number, (_, samples) in enumerate(recordings):
        for each in formats:
            sound = samples if each.rate == RATE else soxr.resample(samples, RATE, each.rate, quality="HQ")
            each.write(folder / each.name / f"{number:06d}.{each.ending}", sound)
    return {each.name: list(find_audio([folder / each.name])) for each in formats}
