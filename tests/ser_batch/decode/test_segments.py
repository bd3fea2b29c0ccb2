from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ser_batch.decode.segments
from ser_batch.audio.reader import level, read_clip
from ser_batch.clips import Segmentation
from ser_batch.decode.segments import decode
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, current_version
from support.recordings import RULE, sources, write

WHOLE = Segmentation(RULE)
SQUARE = 0.1 * (-1.0) ** np.arange(4_800)


def test_a_recording_is_one_row_and_its_waveform(tmp_path: Path) -> None:
    (recording,) = sources(tmp_path, 1)
    ((row, waveform),) = decode(recording, WHOLE)
    clip = read_clip(recording.path, RULE)
    assert (row.status, row.error, row.last, row.version) == ("ok", None, True, current_version(recording))
    assert row.start is not None
    assert row[5:10] == (clip.start, clip.end, clip.duration, 48_000, 1)
    assert row.level == pytest.approx(level(clip.waveform[:4_800]), abs=1e-4)
    np.testing.assert_array_equal(waveform, clip.waveform)


def test_the_level_is_that_of_the_sound_and_not_of_the_padding(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", SQUARE, 48_000, subtype="FLOAT")
    ((row, _),) = decode(Recording(str(tmp_path / "x.wav"), "x"), WHOLE)
    assert row.start is not None
    assert row.level == pytest.approx(-20, abs=1e-3)
    assert level(np.zeros(9, np.float32)) == level(np.full(9, 0.05, np.float32)) == -math.inf
    assert level(np.zeros(0, np.float32)) == -math.inf
    quiet = np.sin(np.arange(48_000) / 7).astype(np.float32) * np.float32(1e-3)
    assert level(quiet + np.float32(0.05)) == pytest.approx(level(quiet), abs=0.01)


def test_the_level_is_measured_without_a_constant_offset(tmp_path: Path) -> None:
    for offset in (0.005, -0.7):
        assert level((SQUARE + offset).astype(np.float32)) == pytest.approx(-20, abs=1e-3)
        assert level(np.full(144_000, offset, np.float32)) == -math.inf
    noise = np.random.default_rng(1).standard_normal(480_000) * 3e-5 + 0.005
    soundfile.write(tmp_path / "pause.wav", noise, 48_000)
    rows = [row for row, _ in decode(Recording(str(tmp_path / "pause.wav"), "x"), Segmentation(RULE, window=3))]
    assert [row.status for row in rows] == ["silent"] * 4


@pytest.mark.parametrize(
    ("segmentation", "status"),
    [
        (Segmentation(RULE), "ok"),
        (Segmentation(RULE, silence=-19), "silent"),
        (Segmentation(RULE, silence=-21), "ok"),
        (Segmentation(RULE, min_duration=0.2), "short"),
        (Segmentation(RULE, window=3, silence=-30), "ok"),
    ],
)
def test_what_is_too_quiet_or_too_short_is_not_scored(tmp_path: Path, segmentation: Segmentation, status: str) -> None:
    soundfile.write(tmp_path / "x.wav", SQUARE, 48_000, subtype="FLOAT")
    ((row, waveform),) = decode(Recording(str(tmp_path / "x.wav"), "x"), segmentation)
    assert (row.status, waveform is None) == (status, status != "ok")


def test_digital_silence_is_silent_with_no_option_at_all(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(4_800), 48_000)
    ((row, waveform),) = decode(Recording(str(tmp_path / "x.wav"), "x"), WHOLE)
    assert (row.status, waveform) == ("silent", None)


def test_a_surprise_in_one_file_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, *rule: object, **options: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ser_batch.decode.segments, "read_segments", fail)
    ((row, waveform),) = decode(sources(tmp_path, 1)[0], WHOLE)
    assert (row.status, row.start, waveform) == ("error", None, None)
    assert row.error == "unexpected MemoryError: MemoryError('no room')"


def test_segments_before_the_damage_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", 8.0)
    path.write_bytes(path.read_bytes()[:-100_000])
    rows = [row for row, _ in decode(Recording(str(path), "x"), Segmentation(RULE, window=3))]
    assert [row.status for row in rows] == ["ok", "ok", "ok", "error"]
    assert [row.last for row in rows] == [False, False, False, True]
    assert "truncated" in (rows[-1].error or "")


def test_the_version_changes_with_the_input(tmp_path: Path) -> None:
    (recording,) = sources(tmp_path, 1)
    before = current_version(recording)
    write(Path(recording.path), 0.5)
    assert current_version(recording) != before
    Path(recording.path).unlink()
    assert current_version(recording) == UNKNOWN_VERSION
