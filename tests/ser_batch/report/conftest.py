"""A table to report on, and a folder with sound for some of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from support.recordings import sound
from support.report_tables import recordings


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return recordings(tmp_path / "preds.parquet")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds & more"
    (folder / "a").mkdir(parents=True)
    for row in range(1, 10):
        soundfile.write(folder / "a" / f"{row:03}.wav", sound(0.5, 16_000, seed=row), 16_000)
    return folder
