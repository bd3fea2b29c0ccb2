from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ser_batch.audio.measure import bandwidth, clipped
from ser_batch.audio.reader import read_clip
from ser_batch.output.rows import CLIPPED
from support.encoded import encode
from support.recordings import RULE


def low_passed(cutoff: float, seconds: float = 3.0, rate: int = 48_000, seed: int = 0) -> np.ndarray:
    """Noise up to `cutoff` Hz, of power -26 dBFS."""
    count = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    spectrum[np.fft.rfftfreq(count, 1 / rate) > cutoff] = 0
    noise = np.fft.irfft(spectrum, count)
    return 0.05 * noise / noise.std()


def speech_like(rate: int = 48_000, seconds: float = 3.0) -> np.ndarray:
    """Noise whose power falls by 12 dB an octave from 500 Hz on, as that of speech, to a microphone's noise."""
    count = round(seconds * rate)
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=count)) / (1 + (np.fft.rfftfreq(count, 1 / rate) / 500) ** 2)
    voice = np.fft.irfft(spectrum, count)
    return 0.05 * voice / voice.std() + rng.normal(0, 2e-4, count)


@pytest.mark.parametrize("cutoff", [1_000, 3_400, 7_000, 12_000, 16_000, 20_000])
@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize("bits", [16, 24])
def test_the_cutoff_of_a_low_pass_is_found(cutoff: float, gain: float, bits: int) -> None:
    steps = 2.0 ** (bits - 1)
    samples = (np.round(gain * low_passed(cutoff) * steps) / steps).astype(np.float32)
    assert bandwidth(samples, 48_000, 48_000) == pytest.approx(cutoff, rel=0.03, abs=100)


@pytest.mark.parametrize("seconds", [0.005, 0.05, 0.5])
def test_short_segments_have_a_bandwidth(seconds: float) -> None:
    samples = low_passed(7_000, seconds).astype(np.float32)
    assert bandwidth(samples, 48_000, 48_000) == pytest.approx(7_000, rel=0.15)


def test_nothing_has_no_bandwidth() -> None:
    for value in (0.0, 0.1):
        assert bandwidth(np.full(9_000, value, np.float32), 48_000, 48_000) is None
    noise_of_16_bits = np.random.default_rng(0).integers(-1, 2, 144_000).astype(np.float32) / 32_768 / 2
    assert (bandwidth(noise_of_16_bits, 48_000, 48_000) or 0) >= 0


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_what_was_cut_off_at_full_scale_is_told_from_what_reaches_it(tmp_path: Path, rate: int) -> None:
    voice = soxr.resample(speech_like(), 48_000, rate)
    voice = voice / np.abs(voice).max()
    soundfile.write(tmp_path / "full.wav", voice, rate)
    soundfile.write(tmp_path / "cut.wav", np.clip(2 * voice, -1, 1), rate)
    full, cut = (read_clip(tmp_path / f"{name}.wav", RULE) for name in ("full", "cut"))
    assert full.clipped < CLIPPED / 3 and cut.clipped > 2 * CLIPPED
    assert clipped(np.array([1.0, -1.5, 0.5, 0.0], np.float32)) == 0.5 and clipped(np.zeros(0, np.float32)) == 0


def test_an_offset_has_no_bandwidth_of_its_own() -> None:
    samples = low_passed(7_000).astype(np.float32)
    assert bandwidth(samples + np.float32(0.3), 48_000, 48_000) == bandwidth(samples, 48_000, 48_000)


@pytest.mark.parametrize("coding", ["PCM_16", "ULAW"])
@pytest.mark.parametrize("upsampled", [False, True])
def test_a_telephone_is_told_whatever_rate_its_file_says(tmp_path: Path, coding: str, upsampled: bool) -> None:
    telephone = soxr.resample(speech_like(), 48_000, 8_000)
    soundfile.write(tmp_path / "8k.wav", telephone, 8_000, subtype=coding)
    path = tmp_path / "8k.wav"
    if upsampled:
        path = tmp_path / "48k.wav"
        soundfile.write(path, soxr.resample(soundfile.read(tmp_path / "8k.wav")[0], 8_000, 48_000), 48_000)
    clip = read_clip(path, RULE)
    assert clip.sample_rate == (48_000 if upsampled else 8_000)
    assert clip.bandwidth is not None
    assert 3_000 < clip.bandwidth < 4_100


def test_wideband_is_told_from_full_band(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "full.wav", speech_like(), 48_000)
    soundfile.write(tmp_path / "wide.wav", soxr.resample(speech_like(16_000), 16_000, 48_000), 48_000)
    full, wide = (read_clip(tmp_path / f"{name}.wav", RULE).bandwidth for name in ("full", "wide"))
    assert full is not None and wide is not None
    assert full > 15_000
    assert 6_500 < wide < 8_200


@pytest.mark.parametrize("cutoff", [4_000, 8_000, 12_000, 20_000])
def test_what_opus_cuts_off_is_found(tmp_path: Path, cutoff: int) -> None:
    options = {"cutoff": str(cutoff)}
    path = encode(tmp_path / "x.webm", "webm", samples=low_passed(24_000)[:, None], codec_options=options)
    assert read_clip(path, RULE).bandwidth == pytest.approx(cutoff, rel=0.1)
