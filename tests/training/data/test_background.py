"""Clips without speech: finite, of one level, unlike each other, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from ser_batch.clips import ClipRule
from training.config import AugmentConfig
from training.data.background import LEVEL, SOUNDS, background_clip

RULE = ClipRule()


@pytest.mark.parametrize("make", SOUNDS)
def test_a_sound_is_as_long_as_its_times_and_moves(make) -> None:
    time = np.arange(48_000, dtype=np.float32) / 48_000
    for seed in range(10):
        sound = make(time, np.random.default_rng(seed))
        assert sound.shape == time.shape and np.isfinite(sound).all() and sound.std() > 0


def test_clips_are_of_one_level_and_the_same_for_the_same_seed() -> None:
    clips = [background_clip(RULE, AugmentConfig(), np.random.default_rng(seed)) for seed in (0, 1, 0)]
    assert all(clip.shape == (RULE.samples,) and clip.dtype == np.float32 for clip in clips)
    assert [float(np.sqrt(np.mean(clip**2))) for clip in clips] == pytest.approx([LEVEL] * 3, rel=1e-3)
    assert np.array_equal(clips[0], clips[2]) and not np.allclose(clips[0], clips[1])
