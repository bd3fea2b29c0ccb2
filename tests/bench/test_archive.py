from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from bench.archive import (
    FORMATS,
    EncodedFormat,
    decode_batch,
    link_recordings,
    read_clips,
    synthetic_recordings,
    transcode,
)
from ser_batch.audio.reader import read_recording
from ser_batch.clips import ClipRule
from ser_batch.errors import AudioError, InputError
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from support.tones import pitch, write_tones

NAMES = [each.name for each in FORMATS]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tones and a broken file; see `write_tones`."""
    return write_tones(tmp_path_factory.mktemp("tones"))


def loudest(path: str) -> float:
    """Hz of the strongest frequency in a file."""
    sound = read_recording(path, 48_000)
    return float(np.abs(np.fft.rfft(sound)).argmax() * 48_000 / len(sound))


def test_bad_recordings_are_left_out_of_the_clips(noises, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    rule = ClipRule()
    recordings = find_recordings([noises, tmp_path / "bad.wav"])
    clips, found = read_clips(recordings, rule, limit=10)
    assert clips.shape == (3, 144_000) and [Path(recording.path).name for recording in found] == [
        "0.wav",
        "1.wav",
        "2.wav",
    ]
    assert np.array_equal(decode_batch(found, rule), clips)
    with pytest.raises(AudioError):
        decode_batch(recordings, rule)


def test_links_start_again_after_the_last_source_and_continue_where_they_ended(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / "in" / name, np.zeros(80), 8_000)
    monkeypatch.chdir(tmp_path)
    recordings = find_recordings(["in"])  # relative: links must not be
    link_recordings(recordings, tmp_path / "audio", 3)
    link_recordings(recordings, tmp_path / "audio", 2, start=3)
    links = sorted((tmp_path / "audio").iterdir())
    assert [link.name for link in links] == [
        *("00000000.wav", "00000001.flac", "00000002.wav", "00000003.flac", "00000004.wav"),
    ]
    assert [link.readlink().name for link in links] == ["a.wav", "b.flac"] * 2 + ["a.wav"]
    assert all(link.is_symlink() and link.is_file() for link in links)


def test_no_links_are_made_to_object_stores(tmp_path):
    with pytest.raises(InputError, match="files on this machine"):
        link_recordings([Recording("s3://bucket/a.wav", "a.wav")], tmp_path / "audio", 1)


def test_synthetic_recordings_are_audible_and_each_of_another_level(tmp_path):
    recordings = synthetic_recordings(tmp_path, ClipRule(), 9)
    levels = [np.abs(read_recording(recording.path, 48_000)).max() for recording in recordings]
    assert len(recordings) == 9 and min(levels) > 0.005 and len({round(float(level), 5) for level in levels}) == 9


def test_each_folder_holds_its_format_and_the_same_recordings(tones, tmp_path):
    archives = transcode(find_recordings([tones]), FORMATS, tmp_path, limit=4)
    assert list(archives) == NAMES
    heads = {"FLAC": b"fLaC", "WAV": b"RIFF", "OGG": b"OggS"}
    for form in FORMATS:
        found = archives[form.name]
        assert len(found) == 4
        for number, recording in enumerate(found):
            if isinstance(form, EncodedFormat):
                with av.open(recording.path) as container:
                    codec = container.streams.audio[0].codec_context
                    assert (codec.sample_rate, codec.layout.nb_channels) == (form.rate, 1)
                    # What writes and what reads a coding may have different names: libopus, opus.
                    assert codec.codec.canonical_name == av.codec.Codec(form.encoding, "w").canonical_name
                duration = len(read_recording(recording.path, 48_000)) / 48_000
            else:
                info, content = soundfile.info(recording.path), Path(recording.path).read_bytes()
                assert (info.format, info.subtype, info.channels) == (form.container, form.encoding, 1)
                assert info.samplerate == form.rate
                assert content.startswith(heads.get(form.container, b""))
                assert {"OPUS": b"OpusHead", "VORBIS": b"\x01vorbis"}.get(form.encoding, b"") in content[:64]
                duration = info.duration
            # The broken recording is left out and the next ones take its place.
            assert loudest(recording.path) == pytest.approx(pitch(number), abs=3)
            assert duration == pytest.approx(1 + number / 4, abs=0.12)


def test_lossless_formats_hold_the_same_sound_and_lossy_ones_are_smaller(tones, tmp_path):
    archives = transcode(find_recordings([tones]), FORMATS, tmp_path, limit=1)
    path = {name: Path(found[0].path) for name, found in archives.items()}
    flac, wav = (soundfile.read(path[name], dtype="int16")[0] for name in NAMES[:2])
    # libsndfile scales to integers by itself for each of the two, one step of 65,536 apart at most.
    assert np.abs(flac.astype(int) - wav).max() <= 1 and np.abs(wav).max() > 1000
    sizes = [path[name].stat().st_size for name in ("WAV 48 kHz 16 bit", "WAV 16 kHz 16 bit", "MP3 48 kHz")]
    assert sizes[0] > 2.9 * sizes[1] and sizes[1] > sizes[2]


def test_long_recordings_go_to_the_encoders_in_blocks(tmp_path):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 60 * 48_000)
    soundfile.write(tmp_path / "in" / "long.wav", noise, 48_000)
    # That overflows the stack of libvorbis where it is written at once; and one that PyAV writes.
    formats = [each for each in FORMATS if each.name in ("Ogg Vorbis 48 kHz", "AMR 8 kHz")]
    archives = transcode(find_recordings([tmp_path / "in"]), formats, tmp_path, limit=1)
    assert len(archives) == 2
    for found in archives.values():
        assert len(read_recording(found[0].path, 8_000)) / 8_000 == pytest.approx(60, abs=0.1)


def test_nothing_readable_is_no_archive(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="no recording can be read"):
        transcode(find_recordings([tmp_path]), FORMATS, tmp_path, limit=1)
