"""What libsndfile refuses or reads wrongly, though it is valid."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ser_batch.audio.reader import read_clip, read_recording
from ser_batch.audio.windows import read_segments
from ser_batch.clips import Segmentation, cut
from ser_batch.errors import AudioError
from support.encoded import ENCODED, encode, write_aac_in_wav, write_chained, write_dsf, write_flac
from support.recordings import RULE, sound, write

WHOLE = ("m4a", "alac", "mp4", "mov", "mka", "webm", "wv", "tta", "ogg-flac", "wav-g722", "3gp", "caf-alac")
"""Kinds whose length is that of what was written."""
KNOWING = ("alac", "mov", "mka", "wv", "tta", "wav-g722", "wma", "ogg-flac")
"""Kinds whose header says how much there is, and is left when the end is cut off."""

TELEPHONE = ("3gp", "amr", "wav-g722", "wav-g726")
"""Kinds that have one channel only."""


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """The largest correlation of two recordings, whatever the delay between them."""
    size = 1 << (len(one) + len(other)).bit_length()
    product = np.fft.rfft(one, size) * np.fft.rfft(other, size).conj()
    found = np.abs(np.fft.irfft(product, size)).max()
    return float(found / np.sqrt(np.dot(one, one) * np.dot(other, other)))


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_every_kind_gives_the_sound_that_was_written(tmp_path: Path, kind: str, seconds: float) -> None:
    path = encode(tmp_path / "recording", kind, seconds)
    clip, whole = read_clip(path, RULE), read_recording(path, 48_000)
    written = soxr.resample(sound(seconds, ENCODED[kind].rate)[:, 0].astype(np.float32), ENCODED[kind].rate, 48_000)
    assert alike(whole, written) > ENCODED[kind].correlation
    assert clip.decoder == "ffmpeg"
    assert clip.sample_rate == ENCODED[kind].rate
    assert clip.duration == pytest.approx(len(whole) / 48_000, abs=0.05)
    assert abs(clip.duration - seconds) <= max(ENCODED[kind].excess, 0.01)
    np.testing.assert_allclose(clip.waveform, cut(whole, RULE), rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", WHOLE)
def test_padding_of_an_encoder_is_no_sound(tmp_path: Path, kind: str) -> None:
    whole = read_recording(encode(tmp_path / "recording", kind, 1.5), 48_000)
    assert len(whole) == pytest.approx(72_000, abs=5_000 if kind == "caf-alac" else 2)


@pytest.mark.parametrize("kind", [kind for kind in ENCODED if kind not in TELEPHONE])
def test_channels_are_told(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "recording", kind, 1.0, channels=2)
    assert read_clip(path, RULE).channels == 2
    assert alike(read_recording(path, 48_000), resampled(sound(1.0, ENCODED[kind].rate, 2).mean(axis=1), kind)) > 0.9


def resampled(samples: np.ndarray, kind: str) -> np.ndarray:
    return soxr.resample(samples.astype(np.float32), ENCODED[kind].rate, 48_000)


@pytest.mark.parametrize(("kind", "channels"), [("m4a", 8), ("wv", 8), ("mov", 16), ("m4a", 6)])
def test_many_channels_are_read(tmp_path: Path, kind: str, channels: int) -> None:
    path = encode(tmp_path / "recording", kind, 2.0, channels=channels)
    clip = read_clip(path, RULE)
    assert (clip.channels, clip.duration) == (channels, pytest.approx(2.0, abs=0.03))
    assert alike(clip.waveform, resampled(sound(2.0, 48_000, channels).mean(axis=1), kind)) > 0.8


def test_more_channels_than_there_can_be_are_an_error(tmp_path: Path) -> None:
    content = bytearray(write_dsf(tmp_path / "x.dsf", np.zeros(300_000)).read_bytes())
    content[52:56] = struct.pack("<I", 8_000_000)
    (tmp_path / "x.dsf").write_bytes(content)
    with pytest.raises(AudioError):
        read_clip(tmp_path / "x.dsf", RULE)


@pytest.mark.parametrize("kind", ["m4a", "mov", "mka", "webm", "adts", "ts", "wv", "wma", "amr", "mp4", "wav-mp3"])
@pytest.mark.parametrize("span", [(2.0, 6.0), (0.0, 1.0), (7.0, 8.0), (0.3, 7.7)])
def test_a_span_is_what_the_whole_holds_there(tmp_path: Path, kind: str, span: tuple[float, float]) -> None:
    path = encode(tmp_path / "recording", kind, 8.0)
    rate = ENCODED[kind].rate
    rows = list(read_segments(path, Segmentation(RULE, 3.0), span=span))
    assert (rows[0].start, rows[-1].end) == pytest.approx(span, abs=0.02 if kind == "wma" else 1e-3)
    whole = read_recording(path, rate)
    wanted = whole[round(span[0] * rate) : round(min(span[0] + 3, span[1]) * rate)]
    found = rows[0].waveform[: round((rows[0].end - rows[0].start) * 48_000)]
    assert alike(found, soxr.resample(wanted, rate, 48_000)) > 0.985
    clip = read_clip(path, RULE, span=span)
    assert (clip.start, clip.duration) == (span[0] + (0.5 if span[1] - span[0] > 3 else 0), rows[0].duration)


@pytest.mark.parametrize("kind", ["m4a", "adts", "webm", "amr"])
def test_windows_are_those_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "recording", kind, 8.0)
    whole = read_recording(path, 48_000)
    clips = list(read_segments(path, Segmentation(RULE, 3.0, 1.5)))
    assert [clip.start for clip in clips] == [0.0, 1.5, 3.0, 4.5, *([6.0] if len(whole) > 7.5 * 48_000 else [])]
    for clip in clips:
        expected = whole[round(clip.start * 48_000) :][: 3 * 48_000]
        np.testing.assert_allclose(clip.waveform[: len(expected)], expected, rtol=0, atol=2e-6)
        assert clip.duration == pytest.approx(len(whole) / 48_000, abs=0.05)


@pytest.mark.parametrize("kind", KNOWING)
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("seconds", [2.0, 8.0])
def test_what_was_cut_off_is_refused_even_past_the_clip(tmp_path: Path, kind: str, kept: float, seconds: float) -> None:
    options = {"movflags": "+faststart"} if kind in ("alac", "mov") else {}
    path = encode(tmp_path / "recording", kind, seconds, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(AudioError, match=r"is truncated|is damaged|cannot be decoded|holds no audio"):
        read_clip(path, RULE)


@pytest.mark.parametrize("bits", [8, 12, 16, 20, 24])
@pytest.mark.parametrize("length", [True, False])
def test_flac_of_any_width_and_of_unknown_length(tmp_path: Path, bits: int, length: bool) -> None:
    samples = sound(4.5, 8_000)[:, 0]
    integers = np.round(samples * 2 ** (bits - 1)).astype(np.int64)
    path = write_flac(tmp_path / "x.flac", integers, 8_000, bits, length=length)
    clip = read_clip(path, RULE)
    assert clip.decoder == ("libsndfile" if length and bits in (8, 16, 24) else "ffmpeg")
    assert (clip.start, clip.end, clip.duration) == (0.5, 3.5, 4.5)
    expected = integers.astype(np.float32) / np.float32(2 ** (bits - 1))
    np.testing.assert_allclose(read_recording(path, 8_000), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
@pytest.mark.parametrize("renumber", [True, False])
def test_all_links_of_a_chain_are_read(tmp_path: Path, kind: str, renumber: bool) -> None:
    path = write_chained(tmp_path / "x.ogg", 2.0, 3.0, 1.0, kind=kind, renumber=renumber)
    clip = read_clip(path, RULE)
    assert (clip.decoder, clip.duration) == ("ffmpeg", pytest.approx(6.0, abs=0.06))
    whole = read_recording(path, 48_000)
    assert len(whole) == pytest.approx(288_000, abs=3_000)
    for start, seconds in ((0.0, 2.0), (2.0, 3.0), (5.0, 1.0)):
        link = whole[round(start * 48_000) : round((start + seconds) * 48_000)]
        assert alike(link, sound(seconds, 48_000)[:, 0].astype(np.float32)) > 0.9
    assert [row.start for row in read_segments(path, Segmentation(RULE, 3.0))] in ([0, 3], [0, 3, 6])


def test_one_bit_sound_is_read(tmp_path: Path) -> None:
    times = np.arange(round(0.2 * 2_822_400)) / 2_822_400
    path = write_dsf(tmp_path / "x.dsf", 0.4 * np.sin(2 * np.pi * 1_000 * times))
    clip = read_clip(path, RULE)
    assert (clip.sample_rate, clip.decoder) == (352_800, "ffmpeg")
    assert clip.duration == pytest.approx(0.2, abs=0.01)
    expected = np.sin(2 * np.pi * 1_000 * np.arange(9_000) / 48_000).astype(np.float32)
    assert alike(clip.waveform[:9_000], expected) > 0.99


@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_aac_inside_wav_is_read(tmp_path: Path, seconds: float) -> None:
    clip = read_clip(write_aac_in_wav(tmp_path / "x.wav", seconds), RULE)
    assert (clip.decoder, clip.duration) == ("ffmpeg", pytest.approx(seconds, abs=0.06))


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_the_padding_of_an_mp3_is_no_truncation(tmp_path: Path, seconds: float, rate: int) -> None:
    for mode in ("CONSTANT", "VARIABLE"):
        path = tmp_path / f"{mode}.mp3"
        soundfile.write(path, sound(seconds, rate), rate, bitrate_mode=mode, compression_level=0.5)
        assert read_clip(path, RULE).duration == pytest.approx(seconds, abs=0.06)


@pytest.mark.parametrize("kind", ["mp4", "mka", "avi", "ts", "flv"])
def test_pictures_are_passed_over(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "recording", kind, 4.0, video=True)
    clip = read_clip(path, RULE)
    assert clip.duration == pytest.approx(4.0, abs=0.1)
    written = resampled(sound(4.0, ENCODED[kind].rate)[:, 0], kind)
    assert alike(read_recording(path, 48_000), written) > 0.9


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mp4", {"movflags": "frag_every_frame+empty_moov"}),
        ("m4a", {"movflags": "frag_keyframe"}),
        ("webm", {"live": "1"}),
    ],
)
def test_a_length_that_the_header_lacks_is_counted(tmp_path: Path, kind: str, options: dict[str, str]) -> None:
    """As browsers and telephones write it, who cannot go back to the header."""
    path = encode(tmp_path / "recording", kind, 8.0, **options)
    assert read_clip(path, RULE).duration == pytest.approx(8.0, abs=0.05)
    rows = list(read_segments(path, Segmentation(RULE, 3.0)))
    assert [row.start for row in rows] == [0, 3, 6]
    assert [row.duration for row in rows] == pytest.approx([8.0] * 3, abs=0.05)


def test_a_film_without_sound_is_an_error(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="holds no audio that FFmpeg knows; got streams of video"):
        read_clip(tmp_path / "x.mp4", RULE)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile 'x.wav'\n",
        b"v=0\nm=audio 9 RTP 0\n",
    ],
)
def test_a_playlist_opens_nothing(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "x.wav", 1.0)
    (tmp_path / "list.m4a").write_bytes(content)
    with pytest.raises(AudioError, match="cannot be decoded"):
        read_clip(tmp_path / "list.m4a", RULE)


def test_a_pause_that_was_not_recorded_is_silence(tmp_path: Path) -> None:
    """As discontinuous transmission leaves it: packets are missing, and timestamps go on."""
    import av

    path, gappy = encode(tmp_path / "whole.mka", "mka", 6.0), tmp_path / "gappy.mka"
    with av.open(str(path)) as source, av.open(str(gappy), "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size and not 2.0 <= packet.pts * packet.time_base < 4.0:
                packet.stream = stream
                target.mux(packet)
    clips = list(read_segments(gappy, Segmentation(RULE, 1.0)))
    assert clips[-1].end == pytest.approx(6.0, abs=0.01)
    assert [clip.level == -np.inf for clip in clips] == [False, False, False, True, False, False]


@pytest.mark.parametrize("kind", ["m4a", "adts"])
def test_memory_does_not_grow_with_the_recording(tmp_path: Path, kind: str) -> None:
    peaks = []
    for minutes in (0.25, 1):
        path = encode(tmp_path / f"{minutes}", kind, samples=np.zeros((int(minutes * 60) * ENCODED[kind].rate, 1)))
        tracemalloc.start()
        assert sum(1 for _ in read_segments(path, Segmentation(RULE, 3))) in (minutes * 20, minutes * 20 + 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 10e6


def test_ffmpeg_is_not_even_imported_for_what_libsndfile_reads(tmp_path: Path) -> None:
    write(tmp_path / "x.flac", 4.0, kind="flac")
    code = (
        "import sys; import ser_batch.pipeline.run; from ser_batch.audio.reader import read_clip; "
        f"from ser_batch.clips import ClipRule; read_clip({str(tmp_path / 'x.flac')!r}, ClipRule()); "
        "sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
