"""The recordings that are scored: clips read into memory, and archives of any size and format made on the spot."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import soundfile
import soxr
from av.audio.resampler import AudioResampler

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import AudioError, InputError, OutputError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from ser_batch.storage.urls import is_url

_log = logging.getLogger(__name__)
RATE = 48_000
"""Hz that recordings are read at, before they are resampled to a format's own rate."""
BLOCK = 1 << 15
"""Samples handed to an encoder at a time: libvorbis keeps a whole write on the stack, and long ones overflow it
(https://github.com/xiph/vorbis/issues/99)."""

T = TypeVar("T")


def readable(recordings: Sequence[Recording], read: Callable[[str], T], limit: int) -> Iterator[tuple[Recording, T]]:
    """The first `limit` recordings that `read` can read, each with what it made of their path.

    Raises:
        InputError: none can be read.
    """
    found, failure = 0, None
    for recording in recordings:
        if found == limit:
            return
        try:
            content = read(recording.path)
        except AudioError as error:
            failure = error
            continue
        found += 1
        yield recording, content
    if not found:
        raise InputError("there are no clips to measure with: no recording can be read", got=failure)


def read_clips(recordings: Sequence[Recording], rule: ClipRule, limit: int) -> tuple[Waveform, list[Recording]]:
    """The clips of the first `limit` readable recordings, (N, samples), and those recordings.

    Raises:
        InputError: none can be read.
    """
    found = list(readable(recordings, lambda path: read_clip(path, rule).waveform, limit))
    return np.stack([clip for _, clip in found]), [recording for recording, _ in found]


def decode_batch(recordings: Sequence[Recording], rule: ClipRule) -> Waveform:
    """The clips of all `recordings`, (N, samples); AudioError if one cannot be read."""
    return np.stack([read_clip(recording.path, rule).waveform for recording in recordings])


def link_recordings(recordings: Sequence[Recording], audio: Path, count: int, start: int = 0) -> None:
    """Add links to `recordings`, in turn, to the folder `audio`: numbers `start` … `start + count - 1`.

    Raises:
        InputError: a recording is in an object store.
    """
    audio.mkdir(exist_ok=True)
    links = itertools.islice(enumerate(itertools.cycle(recordings)), start, start + count)
    for number, recording in links:
        if is_url(recording.path):
            raise InputError("an archive of links needs files on this machine", got=recording.path)
        path = os.path.abspath(recording.path)  # noqa: PTH100 — names need not be UTF-8
        os.symlink(path, audio / f"{number:08d}{Path(path).suffix}")  # noqa: PTH211


def synthetic_recordings(folder: Path, rule: ClipRule, count: int) -> list[Recording]:
    """Write `count` FLAC files of the reference clips' synthetic sounds, each at another level."""
    clips = synthetic_clips(rule)
    # A silent recording is not scored, and would make the pipeline look fast.
    audible = clips[np.abs(clips).max(axis=1) > 0.01]
    for number in range(count):
        clip = audible[number % len(audible)]
        level = 1 - number / (2 * count)
        soundfile.write(folder / f"{number:05d}.flac", clip * level, rule.sample_rate, subtype="PCM_16")
    return find_recordings([folder])


@dataclass(frozen=True)
class Format:
    """How recordings are written; the names of container and encoding are those of soundfile."""

    name: str
    """Names the folder, too."""
    container: str
    encoding: str
    rate: int
    """Hz."""
    ending: str

    def write(self, path: Path, samples: Waveform) -> None:
        """Write mono `samples` (n,) at this format's rate; OutputError if it cannot be written."""
        try:
            with soundfile.SoundFile(path, "w", self.rate, 1, self.encoding, format=self.container) as sound:
                for start in range(0, len(samples), BLOCK):
                    sound.write(samples[start : start + BLOCK])
        except (OSError, soundfile.LibsndfileError) as error:
            raise OutputError(f"{path} cannot be written as {self.name}", got=error) from error


@dataclass(frozen=True)
class EncodedFormat(Format):
    """One that PyAV writes; the names are FFmpeg's."""

    bit_rate: int | None = None

    def write(self, path: Path, samples: Waveform) -> None:
        """Write mono `samples` (n,) at this format's rate; OutputError if it cannot be written."""
        try:
            with av.open(str(path), "w", format=self.container) as container:
                stream = container.add_stream(self.encoding, rate=self.rate, layout="mono")
                if self.bit_rate:
                    stream.bit_rate = self.bit_rate
                stream.codec_context.open()
                size = stream.codec_context.frame_size or None
                frames = AudioResampler(format=stream.format.name, layout="mono", rate=self.rate, frame_size=size)
                for start in range(0, len(samples), BLOCK):
                    frame = av.AudioFrame.from_ndarray(
                        samples[None, start : start + BLOCK], format="flt", layout="mono"
                    )
                    frame.sample_rate, frame.pts = self.rate, start
                    for each in frames.resample(frame):
                        container.mux(stream.encode(each))
                for each in (*frames.resample(None), None):
                    container.mux(stream.encode(each))
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"{path} cannot be written as {self.name}", got=error) from error


FORMATS = (
    Format("FLAC 48 kHz 16 bit", "FLAC", "PCM_16", 48_000, "flac"),
    Format("WAV 48 kHz 16 bit", "WAV", "PCM_16", 48_000, "wav"),
    Format("WAV 16 kHz 16 bit", "WAV", "PCM_16", 16_000, "wav"),
    Format("MP3 48 kHz", "MP3", "MPEG_LAYER_III", 48_000, "mp3"),
    Format("Ogg Opus 48 kHz", "OGG", "OPUS", 48_000, "opus"),
    Format("Ogg Vorbis 48 kHz", "OGG", "VORBIS", 48_000, "ogg"),
    EncodedFormat("M4A AAC 48 kHz", "ipod", "aac", 48_000, "m4a"),
    EncodedFormat("M4A ALAC 48 kHz", "ipod", "alac", 48_000, "m4a"),
    EncodedFormat("WebM Opus 48 kHz", "webm", "libopus", 48_000, "webm"),
    EncodedFormat("WMA 44.1 kHz", "asf", "wmav2", 44_100, "wma", 96_000),
    EncodedFormat("AMR 8 kHz", "amr", "libopencore_amrnb", 8_000, "amr"),
)


def check_formats() -> tuple[tuple[Format, ...], dict[str, str]]:
    """The formats that can be written here, and why others cannot."""
    reasons = {each.name: _refusal(each) for each in FORMATS}
    able = tuple(each for each in FORMATS if not reasons[each.name])
    return able, {name: reason for name, reason in reasons.items() if reason}


def _refusal(wanted: Format) -> str:
    """Why a format cannot be written here; empty: it can."""
    if isinstance(wanted, EncodedFormat):
        return "" if wanted.encoding in av.codecs_available else f"PyAV {av.__version__} does not write it"
    able = soundfile.check_format(wanted.container, wanted.encoding)
    return "" if able else f"libsndfile {soundfile.__libsndfile_version__} does not write it"


def transcode(
    recordings: Sequence[Recording], formats: Sequence[Format], folder: Path, limit: int
) -> dict[str, list[Recording]]:
    """Write the first `limit` readable recordings, whole and mixed down to mono, in each of `formats` under `folder`.

    Lossy encoders run at their default quality.

    Returns:
        Name of the format → its recordings, in the order of `recordings`.

    Raises:
        InputError: none can be read.
        OutputError: a file cannot be written.
    """
    for each in formats:
        (folder / each.name).mkdir()
    recordings = readable(recordings, lambda path: read_recording(path, RATE), limit)
    _log.info(f"writing at most {limit} recordings in {len(formats)} formats")
    for number, (_, samples) in enumerate(recordings):
        for each in formats:
            sound = samples if each.rate == RATE else soxr.resample(samples, RATE, each.rate, quality="HQ")
            each.write(folder / each.name / f"{number:06d}.{each.ending}", sound)
    return {each.name: list(find_recordings([folder / each.name])) for each in formats}
