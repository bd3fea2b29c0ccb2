"""Arrays as recordings: every type has its full scale, and what is no recording is refused with what was expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_batch.audio.samples import ArraySound
from ser_batch.errors import AudioError, InputError, SerError

RAMP = np.array([-1.0, -0.5, 0.0, 0.5], np.float64)


@pytest.mark.parametrize(
    ("samples", "step"),
    [
        (RAMP, 0.0),
        (RAMP.astype(np.float32), 0.0),
        (RAMP.astype(np.float16), 0.0),
        ((RAMP * 2**7).astype(np.int8), 0.0),
        ((RAMP * 2**7 + 128).astype(np.uint8), 0.0),
        ((RAMP * 2**15).astype(np.int16), 0.0),
        ((RAMP * 2**15).astype(">i2"), 0.0),
        ((RAMP * 2**31).astype(np.int32), 0.0),
    ],
)
def test_every_type_has_its_full_scale(samples: np.ndarray, step: float) -> None:
    sound = ArraySound(samples, 16_000)
    assert (sound.rate, sound.channels, sound.frames, sound.length()) == (16_000, 1, 4, 4)
    frames = sound.read(10)
    assert frames.dtype == np.float32 and frames.shape == (4, 1)
    np.testing.assert_array_equal(frames[:, 0], RAMP.astype(np.float32))
    assert sound.read(10).shape == (0, 1)
    sound.seek(3)
    assert sound.read(10).tolist() == [[0.5]]


def test_channels_come_first() -> None:
    frames = ArraySound(np.stack([RAMP, -RAMP]), 8_000.0).read(2)
    assert frames.tolist() == [[-1.0, 1.0], [-0.5, 0.5]]


@pytest.mark.parametrize(
    ("samples", "rate", "error", "message"),
    [
        (np.zeros((4, 2)), 16_000, InputError, r"another shape; got \(4, 2\); expected .*give x\.T"),
        (np.zeros((2, 1, 4)), 16_000, InputError, r"another shape; got \(2, 1, 4\).*a list of arrays"),
        (np.float32(1), 16_000, InputError, r"another shape; got \(\)"),
        (np.zeros(4, np.int64), 16_000, InputError, r"full scale; got int64; .*Convert them"),
        (np.zeros(4, bool), 16_000, InputError, "full scale; got bool"),
        (np.zeros(4, complex), 16_000, InputError, "full scale; got complex128"),
        ("a.wav", 16_000, InputError, r"text is no samples; got 'a.wav'; .*score_files"),
        (Path("a.wav"), 16_000, InputError, "text is no samples"),
        ([[1.0], [1.0, 2.0]], 16_000, InputError, "cannot be read as a numpy array"),
        (RAMP, 0, InputError, "a sample rate is a whole number of Hz; got 0"),
        (RAMP, 16_000.5, InputError, "a whole number of Hz; got 16000.5"),
        (RAMP, "16 kHz", InputError, "a whole number of Hz; got '16 kHz'"),
        (RAMP, None, InputError, "a whole number of Hz; got None"),
        (RAMP, float("nan"), InputError, "a whole number of Hz; got nan"),
        (RAMP, 100, AudioError, "rate out of range; got 100 Hz; expected 4000 to 192000 Hz"),
    ],
)
def test_what_is_no_recording_is_refused(samples: object, rate: object, error: type[SerError], message: str) -> None:
    with pytest.raises(error, match=message):
        ArraySound(samples, rate)  # type: ignore[arg-type]
