"""Whisper's log-mel front-end against transformers' feature extractor."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.models.whisper_frontend import WhisperLogMel  # noqa: E402

RATE, SAMPLES = 16_000, 48_000
T = np.arange(SAMPLES) / RATE
CLIPS = {
    "noise": 0.1 * np.random.default_rng(0).standard_normal(SAMPLES),
    "tone": 0.9 * np.sin(2 * np.pi * 440 * T),
    "sweep": np.sin(2 * np.pi * (100 * T + 1000 * T**2)),
    "quiet": 1e-4 * np.random.default_rng(1).standard_normal(SAMPLES),
    "silence": np.zeros(SAMPLES),
}


def ours(clip: np.ndarray, bands: int = 80) -> np.ndarray:
    return WhisperLogMel(bands)(torch.from_numpy(clip.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("bands", [80, 128])
def test_is_transformers_features_without_the_padding(name: str, bands: int) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    expected = extractor._np_extract_fbank_features(CLIPS[name][None], "cpu")[0]  # float64
    features = ours(CLIPS[name], bands)
    assert features.shape == (bands, 300)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_padding_to_30_seconds_changes_only_the_last_frames() -> None:
    """The last two reach past the clip's end, where we reflect and the padding is silence."""
    clip = CLIPS["noise"]
    padded = transformers.WhisperFeatureExtractor()(clip, sampling_rate=RATE).input_features[0][:, :300]
    np.testing.assert_allclose(ours(clip)[:, :298], padded[:, :298], atol=1e-4)


@pytest.mark.parametrize("samples", [16_000, 8_001, 4_079])
def test_any_length(samples: int) -> None:
    clip = CLIPS["noise"][:samples]
    expected = transformers.WhisperFeatureExtractor()._np_extract_fbank_features(clip[None], "cpu")[0]
    assert ours(clip).shape == expected.shape == (80, samples // 160)
    np.testing.assert_allclose(ours(clip), expected, atol=1e-4)


def test_the_floor_is_80_db_below_each_clips_own_loudest_bin() -> None:
    loud = np.where(T < 2, CLIPS["noise"], 0)
    clips = np.stack([10 * loud, loud]).astype(np.float32)
    together = WhisperLogMel()(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose(together[1], ours(clips[1]), atol=1e-6)
    np.testing.assert_allclose(np.ptp(together, axis=(1, 2)), 2.0, atol=1e-6)
    np.testing.assert_allclose(together[0] - together[1], 0.5, atol=1e-4)  # 20 dB


@pytest.mark.parametrize("name", ["noise", "tone", "sweep"])
def test_relative_features_are_whispers_with_the_loudest_bin_at_one(name: str) -> None:
    clip = torch.from_numpy(CLIPS[name].astype(np.float32))[None]
    plain = WhisperLogMel()(clip)
    torch.testing.assert_close(WhisperLogMel(relative=True)(clip), plain - plain.max() + 1, atol=1e-5, rtol=0)


def test_relative_silence_is_the_lowest_value() -> None:
    torch.testing.assert_close(WhisperLogMel(relative=True)(torch.zeros(1, SAMPLES)), torch.full((1, 80, 300), -1.0))
