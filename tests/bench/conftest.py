"""Recordings that the tests of `bench` measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="package")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three noises of 3 s at 8 kHz: 0.wav, 1.wav and 2.wav; read only."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.3, 0.3, 24_000), 8_000)
    return folder
