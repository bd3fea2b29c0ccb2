"""Recordings that any format can be told apart in: tones whose pitch is their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100


def pitch(number: int) -> float:
    """Hz of the tone in recording `number`: what tells it from the others in any format."""
    return 300.0 + 200 * number


def write_tones(folder: Path) -> Path:
    """Write five stereo tones of 1 to 2 s, each with a loudness that changes in its own way, and one broken file."""
    rng = np.random.default_rng(7)
    for number in range(5):
        moments = np.arange(int(RATE * (1 + number / 4))) / RATE
        loudness = np.interp(moments, np.linspace(0, moments[-1], 8), 10 ** rng.uniform(-2.5, -0.5, 8))
        tone = loudness * np.sin(2 * np.pi * pitch(number) * moments)
        soundfile.write(folder / f"{number}.wav", np.stack([tone, tone], axis=1), RATE)
    (folder / "2-broken.wav").write_bytes(b"RIFF")
    return folder
