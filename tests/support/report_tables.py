"""Tables for reports: whole recordings with labels, windows of two channels, and names that attack the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ser_batch.arrow import numbers, strings
from support.predictions import softmax, write_predictions

LABELS = ("neutral", "happy", "angry")
HOSTILE = "a/<img src=x onerror=alert(1)>\"'&\u202e</script><script>alert(2)</script>.wav"
REASON = "cannot be decoded <b onmouseover=alert(3)>; got </script><script>alert(4)</script>"


def recordings(path: Path, count: int = 60, *, shift: float = 0.0) -> Path:
    """`count` recordings, every third of each label, and one that failed; `shift` makes the answers worse."""
    rng = np.random.default_rng(0)
    truth = np.arange(count) % 3
    logits = rng.normal(size=(count, 3)) + 2 * np.eye(3)[truth] + [0, shift, 0]
    names = [HOSTILE, *(f"a/{row:03}.wav" for row in range(1, count)), "a/broken.wav"]
    known = np.r_[np.ones(count, dtype=bool), False]
    level = rng.normal(-25, 5, size=count)
    level[3] = -np.inf
    return write_predictions(
        path,
        LABELS,
        names,
        np.vstack([softmax(logits), np.full(3, np.nan)]),
        statuses=["ok"] * count + ["error"],
        errors=[None] * count + [REASON],
        facts={
            "start": numbers(np.zeros(count), np.float64, known),
            "end": numbers(np.full(count, 2.5), np.float64, known),
            "duration": numbers(np.full(count, 2.5), np.float64, known),
            "level": numbers(level, np.float32, known),
            "bandwidth": numbers(rng.uniform(3000, 12000, size=count), np.float32, known),
        },
        handed={
            "speaker": strings([f"s<i>{row % 4}" for row in range(count)] + [None]),
            "given_label": strings([LABELS[i] for i in truth] + [None]),
        },
    )


def windows(path: Path, files: int = 3, each: int = 20) -> Path:
    """Windows of 3 s of `files` recordings with two channels; the second window of each channel is silent."""
    rng = np.random.default_rng(0)
    total = files * each * 2
    number = np.arange(total)
    start = 3.0 * (number // 2 % each)
    return write_predictions(
        path,
        LABELS,
        [HOSTILE if row // (2 * each) == 0 else f"call-{row // (2 * each)}.wav" for row in range(total)],
        softmax(2 * rng.normal(size=(total, 3))),
        statuses=["silent" if each == 3.0 else "ok" for each in start],
        facts={
            "start": numbers(start, np.float64),
            "end": numbers(start + 3, np.float64),
            "duration": numbers(np.full(total, 3.0 * each), np.float64),
            "channel": numbers(1 + number % 2, np.int32),
        },
    )
