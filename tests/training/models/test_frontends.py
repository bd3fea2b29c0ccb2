"""The front-ends against torchaudio, transformers and float64 references written here from the definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.models import repair_torchaudio

torch = pytest.importorskip("torch")
repair_torchaudio()
torchaudio = pytest.importorskip("torchaudio")
transformers = pytest.importorskip("transformers")

from ser_batch.errors import TrainingError  # noqa: E402
from training.config import LogMelConfig  # noqa: E402
from training.models.frontends import Decimate, LogMel, WhisperLogMel, mel_filters, sinc_kernel  # noqa: E402

RATE, SAMPLES = 48_000, 144_000
ABSOLUTE = LogMelConfig(reference="full scale")
SLANEY = LogMelConfig(reference="full scale", mel_scale="slaney", mel_norm="slaney")
LEVELS = {"loud": 1.0, "quiet": 1e-4, "silent": 0.0}


def clip(seed: int = 0) -> np.ndarray:
    """Noise under a slow envelope, a rising tone, half a second of nothing at the end; (144000,), peak 0.95."""
    t = np.arange(SAMPLES) / RATE
    noise = np.random.default_rng(seed).standard_normal(SAMPLES)
    x = noise * (0.2 + np.sin(2 * np.pi * 1.3 * t) ** 2) + 3 * np.sin(2 * np.pi * (120 * t + 900 * t**2))
    x[-RATE // 2 :] = 0
    return (0.95 * x / np.abs(x).max()).astype(np.float32)


def as_batch(*clips: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(clips))


def htk_triangles(bands: int = 128, n_fft: int = 2048, top: float = 24_000.0) -> np.ndarray:
    """HTK mel filters (n_fft // 2 + 1, bands) bin by bin, float64."""
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2595 * np.log10(1 + top / 700), bands + 2)]
    filters = np.zeros((n_fft // 2 + 1, bands))
    for band in range(bands):
        low, peak, high = edges[band : band + 3]
        for k in range(len(filters)):
            f = k * RATE / n_fft
            if low < f <= peak:
                filters[k, band] = (f - low) / (peak - low)
            elif peak < f < high:
                filters[k, band] = (high - f) / (high - peak)
    return filters


def reference_log_mel(x: np.ndarray) -> np.ndarray:
    """(128, 278) dB in float64: Hann, |rFFT|², HTK triangles, 10 log10 of at least 1e-10."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), 2048)[::512] * window
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return 10 * np.log10(np.maximum(power @ htk_triangles(), 1e-10)).T


def reference_decimation(x: np.ndarray) -> np.ndarray:
    """(48000,) in float64: every third sample of x through a sinc of cut-off 0.99 · 8 kHz, Hann, 6 crossings."""
    t = np.arange(-24, 25) / 3 * 0.99
    taps = np.where(np.abs(t) < 6, np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * 0.99 / 3, 0)
    return np.convolve(x.astype(np.float64), taps, mode="same")[::3]


def torchaudio_log_mel(x: torch.Tensor, scale: str = "htk", norm: str | None = None) -> torch.Tensor:
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=2048, hop_length=512, n_mels=128, center=False, f_max=24_000.0, mel_scale=scale, norm=norm
    )
    return torchaudio.transforms.AmplitudeToDB("power", top_db=None)(mel(x))


@pytest.mark.parametrize("level", LEVELS)
def test_log_mel_equals_the_float64_reference(level: str) -> None:
    x = clip() * np.float32(LEVELS[level])
    ours = LogMel(ABSOLUTE)(as_batch(x))[0].numpy()
    assert ours.shape == (128, 278)
    np.testing.assert_allclose(ours, reference_log_mel(x), atol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_log_mel_equals_torchaudio(level: str) -> None:
    x = as_batch(clip() * np.float32(LEVELS[level]))
    torch.testing.assert_close(LogMel(ABSOLUTE)(x), torchaudio_log_mel(x), atol=1e-3, rtol=0)


def test_slaney_log_mel_equals_torchaudio() -> None:
    x = as_batch(clip())
    torch.testing.assert_close(LogMel(SLANEY)(x), torchaudio_log_mel(x, "slaney", "slaney"), atol=1e-3, rtol=0)
    assert (LogMel(SLANEY)(x) - LogMel(ABSOLUTE)(x)).abs().max() > 1, "the option changes nothing"


def test_silence_is_the_floor() -> None:
    silent = LogMel(ABSOLUTE)(torch.zeros(1, SAMPLES))
    torch.testing.assert_close(silent, torch.full((1, 128, 278), -100.0), atol=1e-4, rtol=0)


def test_log_mel_of_a_pure_tone_peaks_in_its_band() -> None:
    """Without any reference: 3 kHz on a bin's centre, amplitude 1, has power (2048 / 4)² under a Hann window."""
    tone = torch.sin(2 * torch.pi * 3000 * torch.arange(SAMPLES, dtype=torch.float64) / RATE).float()
    mel, filters = LogMel(ABSOLUTE)(tone[None])[0], mel_filters(LogMelConfig())
    band = int(filters[128].argmax())  # 3000 Hz is bin 128
    assert int(mel[:, 100].argmax()) == band
    shares = filters[127:130, band]  # a Hann window leaves half the amplitude in each neighbouring bin
    expected = 10 * np.log10((shares * np.array([0.25, 1, 0.25])).sum() * 512.0**2)
    assert float(mel[band, 100]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("hop", [256, 512])
def test_other_frame_lengths_follow_the_same_definition(hop: int) -> None:
    config = LogMelConfig(n_fft=1024, hop=hop, n_mels=64, reference="full scale")
    x = as_batch(clip())
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=1024, hop_length=hop, n_mels=64, center=False, f_max=24_000.0
    )
    expected = torchaudio.transforms.AmplitudeToDB("power", top_db=None)(mel(x))
    torch.testing.assert_close(LogMel(config)(x), expected, atol=3e-3, rtol=0)


@pytest.mark.parametrize("top", [8_000.0, 24_000.0])
def test_bins_beyond_the_bands_are_not_computed(top: float) -> None:
    config = LogMelConfig(n_fft=4096, hop=2048, n_mels=64, f_max=top, reference="full scale")
    x, model = as_batch(clip()), LogMel(config)
    mel = torchaudio.transforms.MelSpectrogram(RATE, 4096, hop_length=2048, n_mels=64, center=False, f_max=top)
    expected = torchaudio.transforms.AmplitudeToDB("power", top_db=None)(mel(x))
    torch.testing.assert_close(model(x), expected, atol=3e-3, rtol=0)
    used = int((mel_filters(config) > 0).any(axis=1).sum())
    assert used <= len(model.filters) < 1.15 * used + 64


@pytest.mark.parametrize(("config", "norm"), [(LogMelConfig(), None), (SLANEY, "slaney")])
def test_mel_filters_equal_torchaudio(config: LogMelConfig, norm: str | None) -> None:
    expected = torchaudio.functional.melscale_fbanks(1025, 0.0, 24_000.0, 128, RATE, norm, config.mel_scale)
    ours = mel_filters(config)
    np.testing.assert_allclose(ours, expected.numpy(), atol=3e-4 * ours.max())  # theirs is made in float32
    assert (ours.sum(axis=0) > 0).all(), "an empty mel band"


@pytest.mark.parametrize("level", LEVELS)
def test_decimation_equals_the_float64_reference(level: str) -> None:
    x = clip() * np.float32(LEVELS[level])
    ours = Decimate(3)(as_batch(x))[0].numpy()
    assert ours.shape == (48_000,)
    np.testing.assert_allclose(ours, reference_decimation(x), atol=1e-6 * LEVELS[level], rtol=0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("samples", [SAMPLES, SAMPLES - 1, SAMPLES - 2])
def test_decimation_equals_torchaudio(level: str, samples: int) -> None:
    x = as_batch(clip()[:samples] * np.float32(LEVELS[level]))
    expected = torchaudio.functional.resample(x, 48_000, 16_000)
    torch.testing.assert_close(Decimate(3)(x), expected, atol=1e-6 * LEVELS[level], rtol=0)


def test_decimation_passes_speech_and_stops_what_would_fold_back() -> None:
    t = torch.arange(SAMPLES, dtype=torch.float64) / RATE
    for hertz, low, high in ((200, 0.999, 1.001), (4000, 0.99, 1.01), (12_000, 0.0, 2e-3)):
        amplitude = Decimate(3)(torch.sin(2 * torch.pi * hertz * t).float()[None])[0, 500:-500].std() * 2**0.5
        assert low <= float(amplitude) <= high, hertz
    assert sinc_kernel(3).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "frontend", [LogMel(ABSOLUTE), LogMel(LogMelConfig()), Decimate(3)], ids=["log-mel", "relative", "decimate"]
)
def test_a_clip_alone_is_the_same_clip_in_a_batch(frontend: torch.nn.Module) -> None:
    clips = [clip(0), clip(1) * np.float32(1e-4), np.zeros(SAMPLES, np.float32), clip(2)]
    together = frontend(as_batch(*clips))
    for x, row in zip(clips, together, strict=True):
        torch.testing.assert_close(frontend(as_batch(x))[0], row, atol=1e-4, rtol=0)


def test_the_frontends_add_nothing_to_the_weights() -> None:
    assert not LogMel(ABSOLUTE).state_dict() and not Decimate(3).state_dict()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop": 500},
        {"hop": 256},
        {"n_fft": 2000, "hop": 500},
        {"f_max": 30_000.0},
        {"f_min": 24_000.0},
        {"dynamic_range": 0.0},
    ],
)
def test_settings_it_cannot_do_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        dataclasses.replace(LogMelConfig(), **wrong)


WHISPER_RATE, WHISPER_SAMPLES = 16_000, 48_000
SECONDS = np.arange(WHISPER_SAMPLES) / WHISPER_RATE
WHISPER_CLIPS = {
    "noise": 0.1 * np.random.default_rng(0).standard_normal(WHISPER_SAMPLES),
    "tone": 0.9 * np.sin(2 * np.pi * 440 * SECONDS),
    "sweep": np.sin(2 * np.pi * (100 * SECONDS + 1000 * SECONDS**2)),
    "quiet": 1e-4 * np.random.default_rng(1).standard_normal(WHISPER_SAMPLES),
    "silence": np.zeros(WHISPER_SAMPLES),
}


def whisper(clip: np.ndarray, bands: int = 80) -> np.ndarray:
    return WhisperLogMel(bands)(torch.from_numpy(clip.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("name", WHISPER_CLIPS)
@pytest.mark.parametrize("bands", [80, 128])
def test_is_transformers_features_without_the_padding(name: str, bands: int) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    expected = extractor._np_extract_fbank_features(WHISPER_CLIPS[name][None], "cpu")[0]  # float64
    features = whisper(WHISPER_CLIPS[name], bands)
    assert features.shape == (bands, 300)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_padding_to_30_seconds_changes_only_the_last_frames() -> None:
    """The last two reach past the clip's end, where we reflect and the padding is silence."""
    clip = WHISPER_CLIPS["noise"]
    padded = transformers.WhisperFeatureExtractor()(clip, sampling_rate=WHISPER_RATE).input_features[0][:, :300]
    np.testing.assert_allclose(whisper(clip)[:, :298], padded[:, :298], atol=1e-4)


@pytest.mark.parametrize("samples", [16_000, 8_001, 4_079])
def test_any_length(samples: int) -> None:
    clip = WHISPER_CLIPS["noise"][:samples]
    expected = transformers.WhisperFeatureExtractor()._np_extract_fbank_features(clip[None], "cpu")[0]
    assert whisper(clip).shape == expected.shape == (80, samples // 160)
    np.testing.assert_allclose(whisper(clip), expected, atol=1e-4)


def test_the_floor_is_80_db_below_each_clips_own_loudest_bin() -> None:
    loud = np.where(SECONDS < 2, WHISPER_CLIPS["noise"], 0)
    clips = np.stack([10 * loud, loud]).astype(np.float32)
    together = WhisperLogMel()(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose(together[1], whisper(clips[1]), atol=1e-6)
    np.testing.assert_allclose(np.ptp(together, axis=(1, 2)), 2.0, atol=1e-6)
    np.testing.assert_allclose(together[0] - together[1], 0.5, atol=1e-4)  # 20 dB


@pytest.mark.parametrize("name", ["noise", "tone", "sweep"])
def test_relative_whisper_features_are_its_own_with_the_loudest_bin_at_one(name: str) -> None:
    clip = torch.from_numpy(WHISPER_CLIPS[name].astype(np.float32))[None]
    plain = WhisperLogMel()(clip)
    torch.testing.assert_close(WhisperLogMel(relative=True)(clip), plain - plain.max() + 1, atol=1e-5, rtol=0)


def test_relative_whisper_features_of_silence_are_the_lowest() -> None:
    silent = WhisperLogMel(relative=True)(torch.zeros(1, WHISPER_SAMPLES))
    torch.testing.assert_close(silent, torch.full((1, 80, 300), -1.0))
