"""A few synthetic recordings under names of RAVDESS clips, and toy bundles whose accuracy on them is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule


def write_speech(root: Path, clip: ClipRule, emotions: tuple[int, ...] = (1, 3, 4, 5, 8)) -> Path:
    """Write one recording an emotion (1-8) for actor 01, twice as long as a clip; different seeds, levels and pitch."""
    folder = root / "Actor_01"
    folder.mkdir(parents=True)
    clips = synthetic_clips(clip)
    for number, emotion in enumerate(emotions):
        sound = np.concatenate([clips[number % len(clips)], clips[(number + 3) % len(clips)]]) * 0.9**number
        soundfile.write(folder / f"03-01-{emotion:02}-01-01-01-01.wav", sound, clip.sample_rate)
    return root
