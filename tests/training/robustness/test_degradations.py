from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_batch.audio.measure import bandwidth
from support.recordings import sound
from training.robustness.degradations import coded, encode, narrowed, telephoned

RATE = 48_000
NOISE = sound(4.0, RATE)[:, 0].astype(np.float32)


@pytest.mark.parametrize(("suffix", "codec", "bits"), [("opus", "libopus", 16_000), ("mp3", "libmp3lame", 32_000)])
def test_a_codec_has_the_bit_rate_that_is_asked_for(tmp_path: Path, suffix: str, codec: str, bits: int) -> None:
    encode(NOISE, RATE, tmp_path / f"a.{suffix}", codec, bits)
    assert (tmp_path / f"a.{suffix}").stat().st_size * 8 / 4.0 == pytest.approx(bits, rel=0.2)


@pytest.mark.parametrize(("suffix", "codec"), [("opus", "libopus"), ("mp3", "libmp3lame")])
def test_what_is_decoded_lies_where_it_lay(suffix: str, codec: str) -> None:
    heard = coded(NOISE, RATE, suffix, codec, 128_000)
    assert heard.shape == NOISE.shape and heard.dtype == np.float32
    assert np.corrcoef(heard, NOISE)[0, 1] > 0.9  # a shift of three samples would leave half of it


def test_an_encoder_is_given_what_was_sampled() -> None:
    heard = coded(NOISE, RATE, "opus", "libopus", 32_000, 16_000)
    assert heard.shape == NOISE.shape and (bandwidth(heard, RATE, RATE) or 0) < 9_000


def test_nothing_is_left_above_half_the_rate() -> None:
    assert (bandwidth(narrowed(NOISE, RATE, 16_000), RATE, RATE) or 0) < 8_100
    assert (bandwidth(telephoned(NOISE, RATE), RATE, RATE) or 0) < 4_100


def test_a_telephone_has_256_levels() -> None:
    quiet = np.sin(np.arange(RATE) / 40).astype(np.float32) * 0.3
    heard = telephoned(quiet, RATE)
    middle = slice(1000, -1000)  # resampling rings at the ends
    error = np.std(heard[middle] - quiet[middle]) / np.std(quiet)
    assert 0.001 < error < 0.03  # G.711 has some 38 dB of signal over noise
