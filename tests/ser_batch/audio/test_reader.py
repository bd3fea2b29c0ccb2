from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.clips import cut
from ser_batch.errors import AudioError
from support.recordings import FORMATS, RULE, sound, write


def test_a_long_recording_loses_its_offset_and_its_end(tmp_path: Path) -> None:
    samples = sound(5, 48_000)[:, 0].astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, 48_000, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", RULE)
    np.testing.assert_array_equal(clip.waveform, samples[24_000:168_000])
    assert (clip.start, clip.end, clip.duration) == (0.5, 3.5, 5.0)
    assert (clip.sample_rate, clip.channels) == (48_000, 1)


@pytest.mark.parametrize(("frames", "start"), [(1, 0), (143_999, 0), (144_000, 0), (144_001, 0.5)])
def test_a_recording_that_fits_into_a_clip_is_kept_whole_and_padded(tmp_path: Path, frames: int, start: float) -> None:
    samples = sound(4, 48_000)[:frames, 0].astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, 48_000, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", RULE)
    heard = samples[round(start * 48_000) :]
    np.testing.assert_array_equal(clip.waveform[: len(heard)], heard)
    assert not clip.waveform[len(heard) :].any()
    assert (clip.start, clip.end, clip.duration) == (start, frames / 48_000, frames / 48_000)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 47_999, 96_000, 192_000])
def test_decoding_a_part_equals_resampling_the_whole(tmp_path: Path, rate: int) -> None:
    samples = sound(7, rate)[:, 0].astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", RULE)
    whole = soxr.resample(samples, rate, 48_000, quality="HQ")
    np.testing.assert_allclose(clip.waveform, cut(whole, RULE), rtol=0, atol=2e-7)
    assert (clip.start, clip.end, clip.duration, clip.sample_rate) == (0.5, 3.5, 7.0, rate)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("seconds", [0.2, 2.999, 3.0, 3.2, 3.6, 3.76])
def test_every_length_around_the_clip_equals_cutting_the_whole(tmp_path: Path, rate: int, seconds: float) -> None:
    path = write(tmp_path / "x.wav", seconds, rate)
    clip = read_clip(path, RULE)
    whole = read_recording(path, 48_000)
    np.testing.assert_allclose(clip.waveform, cut(whole, RULE), rtol=0, atol=2e-7)
    assert clip.start == (0.5 if len(whole) > 144_000 else 0)
    assert clip.end == min(clip.start + 3, clip.duration)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_every_format_gives_the_sound_that_was_written(tmp_path: Path, kind: str, seconds: float) -> None:
    # No ending: the content decides, not the name.
    path = write(tmp_path / "recording", seconds, kind=kind)
    clip = read_clip(path, RULE)
    expected = cut(sound(seconds, 48_000)[:, 0].astype(np.float32), RULE)
    assert np.corrcoef(clip.waveform, expected)[0, 1] > 0.9
    assert clip.duration == pytest.approx(seconds, abs=0.06)
    np.testing.assert_allclose(clip.waveform, cut(read_recording(path, 48_000), RULE), rtol=0, atol=2e-7)


@pytest.mark.parametrize("channels", [2, 3, 8, 64])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    noise = sound(4, 48_000, channels)
    soundfile.write(tmp_path / "x.wav", noise, 48_000)
    clip = read_clip(tmp_path / "x.wav", RULE)
    expected = noise.mean(axis=1)[24_000:168_000]
    assert clip.channels == channels
    np.testing.assert_allclose(clip.waveform, expected, atol=4e-5)  # 16 bit, cut off


@pytest.mark.parametrize("rate", [1, 3_999, 192_001, 10_000_000])
def test_rates_out_of_range_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(100), rate)
    with pytest.raises(AudioError, match=f"got {rate} Hz"):
        read_clip(tmp_path / "x.wav", RULE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_audio_are_refused(tmp_path: Path, value: float, channels: int) -> None:
    samples = np.zeros((48_000, channels), dtype=np.float32)
    samples[20_000, -1] = value
    soundfile.write(tmp_path / "x.wav", samples, 48_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"/x\.wav holds samples that are no audio"):
        read_clip(tmp_path / "x.wav", RULE)


def test_files_that_hold_no_audio_are_refused(tmp_path: Path) -> None:
    cases = {
        "empty.wav": b"",
        "text.wav": b"hello " * 999,
        "zeros.flac": bytes(9_999),
        "m4a.wav": b"\0\0\0\x20ftypM4A ",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "noframes.wav", np.zeros(0), 48_000)
    for name in [*cases, "noframes.wav"]:
        with pytest.raises(AudioError, match=name):
            read_clip(tmp_path / name, RULE)


@pytest.mark.parametrize("make", ["fifo", "folder", "device", "missing", "broken link", "null byte"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path, make: str) -> None:
    path: str | Path = tmp_path / "x.wav"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        Path(path).mkdir()
    elif make == "device":
        path = "/dev/zero"
    elif make == "broken link":
        Path(path).symlink_to(tmp_path / "nothing")
    elif make == "null byte":
        path = "a\0.wav"
    with pytest.raises(AudioError):
        read_clip(path, RULE)


def test_an_undecodable_name_is_escaped_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    path.write_bytes(b"no audio")
    with pytest.raises(AudioError) as caught:
        read_clip(path, RULE)
    str(caught.value).encode("utf-8")


def test_a_header_that_promises_gigabytes_allocates_little_and_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", 1)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="truncated"):
            read_clip(path, RULE)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_many_channels_allocate_little(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros((48_000, 200), dtype=np.int16), 48_000)
    tracemalloc.start()
    try:
        read_clip(tmp_path / "x.wav", RULE)
        assert tracemalloc.get_traced_memory()[1] < 10e6  # 38 MB if all channels were held at once
    finally:
        tracemalloc.stop()


@pytest.mark.shared
def test_ravdess_clips_equal_the_whole_recordings_cut(ravdess: Path) -> None:
    for path in sorted(ravdess.glob("Actor_0[15]/*.flac"))[::20]:
        clip = read_clip(path, RULE)
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        np.testing.assert_allclose(clip.waveform, cut(samples.mean(axis=1), RULE), rtol=0, atol=1e-7)
        assert clip.duration == len(samples) / rate


@pytest.mark.shared
def test_opus_recordings_of_nemo_are_read(ravdess: Path) -> None:
    paths = sorted((ravdess.parent / "nemo" / "samples").glob("*.opus"))[:20]
    assert paths
    for path in paths:
        clip = read_clip(path, RULE)
        assert clip.sample_rate == 24_000
        assert 0 < clip.end - clip.start <= 3
        assert clip.waveform.any()
