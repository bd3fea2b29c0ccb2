from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ser_batch.audio.reader import read_clip
from ser_batch.audio.windows import read_segments
from ser_batch.clips import Segmentation
from ser_batch.errors import AudioError
from support.encoded import encode
from support.recordings import RULE, sound, write


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize(("window", "hop"), [(3, 1.5), (3, None), (1, 0.25), (2, 2.5)])
def test_segments_equal_the_whole_recording_cut(tmp_path: Path, rate: int, window: float, hop: float | None) -> None:
    samples = sound(7.3, rate)[:, 0].astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    whole = samples if rate == 48_000 else soxr.resample(samples, rate, 48_000, quality="HQ")
    length, step = round(window * 48_000), round((hop or window) * 48_000)
    starts = [k * step for k in range(99) if k * step < len(whole) and (k == 0 or (k - 1) * step + length < len(whole))]
    clips = list(read_segments(tmp_path / "x.wav", Segmentation(RULE, window, hop)))
    assert [clip.start for clip in clips] == [start / 48_000 for start in starts]
    for clip, start in zip(clips, starts, strict=True):
        expected = whole[start : start + length]
        np.testing.assert_allclose(clip.waveform[: len(expected)], expected, rtol=0, atol=2e-6)
        assert not clip.waveform[len(expected) :].any()
        assert clip.waveform.shape == (144_000,)
        assert clip.end == pytest.approx(min(start / 48_000 + window, 7.3), abs=1e-4)
        assert clip.duration == pytest.approx(7.3, abs=1e-4)


@pytest.mark.parametrize(
    ("seconds", "starts"), [(0.5, [0]), (3, [0]), (3.01, [0, 1.5]), (4.5, [0, 1.5]), (4.6, [0, 1.5, 3])]
)
def test_the_last_segment_is_the_one_that_reaches_the_end(tmp_path: Path, seconds: float, starts: list[float]) -> None:
    path = write(tmp_path / "x.wav", seconds)
    assert [clip.start for clip in read_segments(path, Segmentation(RULE, 3, 1.5))] == starts


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.zeros(minutes * 60 * 16_000, np.int16), 16_000)
        tracemalloc.start()
        assert sum(1 for _ in read_segments(path, Segmentation(RULE, 3))) == minutes * 20
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 8e6


def test_a_span_is_a_recording_of_its_own(tmp_path: Path) -> None:
    samples = sound(9, 16_000)[:, 0].astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.wav", samples[32_000:96_000], 16_000, subtype="FLOAT")
    clip, alone = read_clip(tmp_path / "x.wav", RULE, span=(2, 6)), read_clip(tmp_path / "cut.wav", RULE)
    np.testing.assert_allclose(clip.waveform, alone.waveform, atol=1e-6)
    assert (clip.start, clip.end, clip.duration) == (2.5, 5.5, 9.0)
    segmentation = Segmentation(RULE, 3, 1)
    windows = list(read_segments(tmp_path / "x.wav", segmentation, span=(2, 6)))
    expected = list(read_segments(tmp_path / "cut.wav", segmentation))
    assert [each.start - 2 for each in windows] == [each.start for each in expected] == [0, 1]
    np.testing.assert_allclose(windows[1].waveform, expected[1].waveform, atol=1e-6)


@pytest.mark.parametrize("span", [(8, 12), (10, 11), (500, 501)])
def test_a_span_past_the_end_is_an_error(tmp_path: Path, span: tuple[float, float]) -> None:
    path = write(tmp_path / "x.wav", 9.0, rate=16_000)
    with pytest.raises(AudioError, match="ends before"):
        read_clip(path, RULE, span=span)
    with pytest.raises(AudioError, match="ends before"):
        list(read_segments(path, Segmentation(RULE, 3), span=span))


@pytest.mark.parametrize("span", [None, (0.0, 5.8)])
@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_a_pause_is_not_heard_in_place_of_speech_that_begins_late(
    tmp_path: Path, kind: str, span: tuple[float, float] | None
) -> None:
    samples = np.concatenate([1e-4 * sound(3.6, 48_000), sound(2.3, 48_000, seed=1)])
    path = tmp_path / f"late.{kind}"
    if kind == "wav":
        soundfile.write(path, samples, 48_000)
    else:
        encode(path, "m4a", samples=samples)
    clips = list(read_segments(path, Segmentation(RULE, whole=True), span=span))
    assert [(clip.start, clip.is_window, clip.level > -40) for clip in clips] == [(0, True, False), (3, True, True)]
    (first,) = read_segments(path, Segmentation(RULE), span=span)
    assert (first.start, first.is_window, first.level < -60) == (0.5, False, True)


@pytest.mark.parametrize(("late", "seconds"), [(1e-4, 2.3), (3e-4, 2.3), (0.0, 2.3)])
def test_a_quiet_recording_is_still_one_clip(tmp_path: Path, late: float, seconds: float) -> None:
    samples = np.concatenate([1e-4 * sound(3.6, 48_000), late * sound(seconds, 48_000)])
    soundfile.write(tmp_path / "quiet.wav", samples, 48_000, subtype="FLOAT")
    (clip,) = read_segments(tmp_path / "quiet.wav", Segmentation(RULE, whole=True))
    assert (clip.start, clip.is_window) == (0.5, False)
