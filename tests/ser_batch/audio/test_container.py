from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.errors import AudioError
from support.recordings import FORMATS, RULE, sound, write


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seconds", [2.0, 8.0])
def test_a_truncated_file_is_refused_even_past_the_clip(tmp_path: Path, kind: str, kept: float, seconds: float) -> None:
    path = write(tmp_path / "x", seconds, kind=kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(AudioError):
        read_clip(path, RULE)


@pytest.mark.parametrize("kind", ["wav", "aiff", "au"])
def test_a_few_missing_bytes_are_forgiven(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "x", 1.0, kind=kind)
    path.write_bytes(path.read_bytes()[:-100])
    assert read_clip(path, RULE).duration == pytest.approx(1 - 50 / 48_000, abs=1e-4)


@pytest.mark.parametrize("seconds", [2.0, 8.0])
@pytest.mark.parametrize("data", [0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFDB, 0])
@pytest.mark.parametrize("riff", ["right", 0, 0xFFFFFFFF, 0x7FFFF024])
def test_a_wav_written_to_a_pipe_is_scored_as_if_its_size_were_right(
    tmp_path: Path, data: int, riff: int | str, seconds: float
) -> None:
    path = write(tmp_path / "x.wav", seconds)
    content = bytearray(path.read_bytes())
    expected = read_clip(path, RULE)
    content[40:44] = struct.pack("<I", data)
    if riff != "right":
        content[4:8] = struct.pack("<I", riff)
    path.write_bytes(content)
    clip = read_clip(path, RULE)
    assert (clip.start, clip.end, clip.duration) == (expected.start, expected.end, expected.duration)
    np.testing.assert_array_equal(clip.waveform, expected.waveform)


def test_chunks_after_the_sound_and_a_wrong_riff_size_are_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", 2.0)
    path.write_bytes(path.read_bytes() + b"LIST\x04\0\0\0abcd" + b"garbage")
    assert read_clip(path, RULE).duration == 2.0


@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_an_mp3_without_a_length_in_its_header_is_read(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "x.mp3"
    soundfile.write(path, sound(seconds, 48_000), 48_000, bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    # The Xing or Info frame is the first; without it the length must be estimated from the file's size.
    second = content.index(content[:2], 200)
    assert b"Info" in content[:second] or b"Xing" in content[:second]
    path.write_bytes(content[second:])
    assert read_clip(path, RULE).duration == pytest.approx(seconds, rel=0.06, abs=0.06)


@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_an_mp3_of_variable_bit_rate_without_a_length_is_read_to_its_end(tmp_path: Path, seconds: float) -> None:
    path = write(tmp_path / "x.mp3", seconds, kind="mp3")
    content = path.read_bytes()
    assert b"Xing" in content[:384]
    path.write_bytes(content[384:])
    clip = read_clip(path, RULE)
    assert (clip.decoder, clip.duration) == ("ffmpeg", pytest.approx(seconds, abs=0.08))
    assert len(read_recording(path, 48_000)) == pytest.approx(clip.duration * 48_000, abs=2)
