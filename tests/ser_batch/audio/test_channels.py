from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.audio.channels import Channels
from ser_batch.audio.reader import read_clip
from ser_batch.audio.windows import read_segments
from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Segmentation
from ser_batch.decode.segments import decode
from ser_batch.errors import AudioError, InputError
from ser_batch.recordings.recording import Recording
from support.commands import run
from support.encoded import encode
from support.recordings import RULE, sound, write


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """Two speakers, one channel each: the first pauses where the second speaks."""
    voices = sound(7.0, 48_000, 2)
    voices[:96_000, 1] = voices[240_000:, 0] = 0
    soundfile.write(tmp_path / "call.wav", voices, 48_000, subtype="FLOAT")
    return tmp_path / "call.wav"


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_the_mix_is_the_mean(channels: int) -> None:
    frames = sound(0.1, 48_000, channels).astype(np.float32)
    taken, instead = Channels("mix", channels).take(frames)
    np.testing.assert_array_equal(taken[:, 0], frames.mean(axis=1, dtype=np.float32))
    assert instead is None


def test_a_channel_is_what_the_file_holds_there(call: Path) -> None:
    voices = soundfile.read(call, dtype="float32")[0]
    for choice, column in (("first", 0), ("1", 0), ("2", 1)):
        (clip,) = read_segments(call, Segmentation(RULE, channels=choice))
        np.testing.assert_array_equal(clip.waveform, voices[24_000:168_000, column])
        assert (clip.channel, clip.channels) == (column + 1, 2)
    left, right = read_segments(call, Segmentation(RULE, channels="split"))
    np.testing.assert_array_equal(left.waveform, voices[24_000:168_000, 0])
    np.testing.assert_array_equal(right.waveform, voices[24_000:168_000, 1])
    assert (left.channel, right.channel, read_clip(call, RULE).channel) == (1, 2, None)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_windows_of_split_channels_are_those_of_each_alone(tmp_path: Path, rate: int) -> None:
    voices = sound(7.0, rate, 3)
    soundfile.write(tmp_path / "all.wav", voices, rate, subtype="FLOAT")
    rows = list(read_segments(tmp_path / "all.wav", Segmentation(RULE, 3.0, 1.5, channels="split")))
    assert [row.channel for row in rows] == [1, 2, 3] * 4
    for channel in (1, 2, 3):
        soundfile.write(tmp_path / "one.wav", voices[:, channel - 1], rate, subtype="FLOAT")
        alone = list(read_segments(tmp_path / "one.wav", Segmentation(RULE, 3.0, 1.5)))
        for row, expected in zip(rows[channel - 1 :: 3], alone, strict=True):
            np.testing.assert_allclose(row.waveform, expected.waveform, rtol=0, atol=1e-6)
            assert (row.start, row.end) == (expected.start, expected.end)
            assert row.level == pytest.approx(expected.level, abs=1e-3)


@pytest.mark.parametrize("offset", [0.0, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_mix_that_cancels_gives_way_to_its_loudest_channel(tmp_path: Path, offset: float, noise: float) -> None:
    voice = sound(7.0, 48_000)[:, 0]
    other = -1.02 * voice + noise * sound(7.0, 48_000, seed=9)[:, 0]
    soundfile.write(tmp_path / "x.wav", np.stack([voice + offset, other - offset], 1), 48_000, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", RULE)
    np.testing.assert_allclose(clip.waveform, other[24_000:168_000] - offset, atol=1e-6)
    assert clip.channel == 2
    rows = list(read_segments(tmp_path / "x.wav", Segmentation(RULE, 3.0)))
    assert [row.channel for row in rows] == [2, 2, 2]
    assert rows[1].level == pytest.approx(clip.level, abs=1)


def test_a_mix_that_cancels_for_a_while_is_told_of_that_while(tmp_path: Path) -> None:
    voices = sound(12.0, 16_000, 2)
    voices[6 * 16_000 :, 1] = -voices[6 * 16_000 :, 0]
    soundfile.write(tmp_path / "x.wav", voices, 16_000, subtype="FLOAT")
    rows = list(read_segments(tmp_path / "x.wav", Segmentation(RULE, 2.0)))
    assert [row.channel is None for row in rows] == [True, True, True, False, False, False]


@pytest.mark.parametrize("kind", ["unrelated", "one silent", "the same", "quiet", "silent", "three"])
def test_what_does_not_cancel_is_mixed(kind: str) -> None:
    voices = sound(1.0, 48_000, 3 if kind == "three" else 2).astype(np.float32)
    if kind == "one silent":
        voices[:, 1] = 0
    elif kind == "the same":
        voices[:, 1] = voices[:, 0]
    elif kind == "quiet":
        voices[:, 1] = -voices[:, 0]
        voices *= np.float32(1e-4)
    elif kind == "silent":
        voices[:] = 0
    assert Channels("mix", voices.shape[1]).take(voices)[1] is None


def test_a_channel_that_is_not_there_is_the_recordings_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", 1.0)
    ((row, _),) = decode(Recording(str(path), "x"), Segmentation(RULE, channels="2"))
    assert (row.status, row.error) == ("error", "has no channel 2; got 1 channel")
    with pytest.raises(AudioError, match="too many channels"):
        Channels("split", 65)
    for choice in ("0", "-1", "left", "1.5", ""):
        with pytest.raises(InputError, match="no such channels"):
            Segmentation(RULE, channels=choice)


def test_split_channels_are_rows_of_their_own(call: Path, tmp_path: Path, toy_bundle: Bundle) -> None:
    encode(tmp_path / "phone.m4a", "m4a", 2.0, channels=2)
    write(tmp_path / "mono.flac", 1.0, kind="flac")
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in ("call.wav", "phone.m4a", "mono.flac"):
        (tmp_path / name).rename(folder / name)
    given = (folder, "--bundle", toy_bundle.root, "--channels", "split", "--quiet")
    assert run(*given, "--out", tmp_path / "o.parquet") == 0
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(row["file"], row["channel"], row["channels"], row["decoder"]) for row in rows] == [
        ("call.wav", 1, 2, "libsndfile"),
        ("call.wav", 2, 2, "libsndfile"),
        ("mono.flac", 1, 1, "libsndfile"),
        ("phone.m4a", 1, 2, "ffmpeg"),
        ("phone.m4a", 2, 2, "ffmpeg"),
    ]
    assert rows[0]["p_sad"] != rows[1]["p_sad"]
    assert all(0 < row["bandwidth"] <= 24_000 for row in rows)
    assert run(*given, "--out", tmp_path / "o.parquet", "--resume") == 0
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 5
    assert run(folder, "--bundle", toy_bundle.root, "--out", tmp_path / "o.parquet", "--resume") == 2
    both = ("--window", 3, "--aggregate", tmp_path / "a.parquet")
    assert run(*given, "--out", tmp_path / "w.parquet", *both) == 0
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["file"], row["channel"], row["segments"]) for row in rows] == [
        ("call.wav", 1, 3), ("call.wav", 2, 3), ("mono.flac", 1, 1), ("phone.m4a", 1, 1), ("phone.m4a", 2, 1),
    ]  # fmt: skip
