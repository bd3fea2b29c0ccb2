"""Recordings that are arrays already: samples of any type and layout, read as those of a file are."""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.audio.sound import MAX_RATE, MIN_RATE
from ser_batch.clips import Waveform
from ser_batch.errors import AudioError, InputError

FULL_SCALE = {"int8": 2**7, "uint8": 2**7, "int16": 2**15, "int32": 2**31}
"""Type of PCM samples -> what stands for 1.0; those of uint8 have their zero at 128."""
EXPECTED = "(n,) or (channels, n) of int16, int32, float32, float64, int8, uint8 or float16"


class ArraySound:
    """Samples in memory, as an `audio.sound.Sound`.

    Args:
        samples: (n,), or (channels, n); integers have their type's full scale, floats 1.0.
        rate: Hz.

    Raises:
        InputError: no such array, or a rate that is none.
        AudioError: the rate is out of range.
    """

    decoder = "array"
    format = "array"

    def __init__(self, samples: npt.ArrayLike, rate: float) -> None:
        self.rate = _rate(rate)
        self._frames = _frames(_array(samples))
        self.frames: int | None
        self.frames, self.channels = self._frames.shape
        self._at = 0

    def read(self, frames: int) -> Waveform:
        """The next frames, (n, channels) float32."""
        taken = self._frames[self._at : self._at + frames]
        self._at += len(taken)
        return _as_float(taken)

    def seek(self, frame: int) -> None:
        """Let the next `read` begin at a frame."""
        self._at = min(frame, len(self._frames))

    def length(self) -> int:
        """How many frames there are."""
        return len(self._frames)

    def check_complete(self, decoded: int, ended: bool) -> None:
        """An array holds what it says."""

    def close(self) -> None:
        """The array is the caller's."""


def _rate(rate: float) -> int:
    try:
        whole = operator.index(int(rate)) if float(rate).is_integer() else 0
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if not whole:
        raise InputError("a sample rate is a whole number of Hz", got=repr(rate), expected="16000, 44100, …")
    if not MIN_RATE <= whole <= MAX_RATE:
        raise AudioError("has a sample rate out of range", got=f"{whole} Hz", expected=f"{MIN_RATE} to {MAX_RATE} Hz")
    return whole


def _array(samples: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        # A tensor on a GPU, or one that has a gradient.
        raise InputError("samples cannot be read as a numpy array", got=error, expected=EXPECTED) from error
    if array.dtype.kind == "U" or isinstance(samples, os.PathLike):
        raise InputError(
            "text is no samples", got=repr(samples)[:80], expected=EXPECTED, remedy="Score files by score_files([…])."
        )
    if array.dtype.name not in FULL_SCALE and array.dtype.kind != "f":
        raise InputError(
            "the type of the samples says nothing of their full scale",
            got=str(array.dtype),
            expected=EXPECTED,
            remedy="Convert them: x.astype(numpy.int16), or divide by the full scale.",
        )
    return array


def _frames(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n, channels), without a copy."""
    if array.ndim == 1:
        return array[:, None]
    if array.ndim == 2 and array.shape[0] and array.shape[0] <= max(1, array.shape[1]):
        return array.T
    remedy = None
    if array.ndim == 2:
        remedy = "Channels come first: give x.T of what soundfile reads."
    elif array.ndim == 3:
        remedy = "Several recordings are a list of arrays."
    raise InputError("samples have another shape", got=array.shape, expected=EXPECTED, remedy=remedy)


def _as_float(frames: npt.NDArray[Any]) -> Waveform:
    kind = frames.dtype.name
    if kind not in FULL_SCALE:
        with np.errstate(over="ignore"):  # what is no sample becomes infinite, and is refused as such
            return np.ascontiguousarray(frames, dtype=np.float32)
    offset = np.float32(128 if kind == "uint8" else 0)
    scaled: Waveform = (frames.astype(np.float32) - offset) / np.float32(FULL_SCALE[kind])
    return scaled
