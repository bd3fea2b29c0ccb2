"""Recordings that the tests of `bench` measure with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from bench.peers.models import Model
    from support.toy_exports import Exports


@pytest.fixture(scope="package")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three noises of 3 s at 8 kHz: 0.wav, 1.wav and 2.wav; read only."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.3, 0.3, 24_000), 8_000)
    return folder


@pytest.fixture
def models_before(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of `bench.peers.models` whose weights were exported before take that graph."""
    monkeypatch.setattr("bench.peers.models.export_branch", exports)


@pytest.fixture(scope="package")
def small_model(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small context branch with random weights, and its bundle; read only."""
    from bench.peers.models import random_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.peers.models.export_branch", exports)
        return random_model(tmp_path_factory.mktemp("small") / "bundle", "small", only_context=True)
