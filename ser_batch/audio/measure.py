"""How loud a segment is, whether it is clipped, and up to which frequency there is anything in it."""

from __future__ import annotations

import math

import numpy as np

from ser_batch.clips import Waveform

FRAME = 1024
"""Samples of one spectrum: 47 Hz apart at 48 kHz."""
FRAMES = 48
"""Spectra that are averaged at most, spread over the segment: a third of a millisecond."""
SHARE = 0.99
"""Of the energy that lies below the bandwidth, each frequency weighted by its square: speech falls by as much."""
FLOOR = 10 ** (-90 / 10)
"""Power of noise over the whole band that counts as none: 16 bits, dithered, leave -96 dBFS."""
FULL = 0.99
"""Of full scale: resampled, the flat top of a clipped wave swings about it."""
OFFSET = 1e-6
"""What is left of a constant signal without its mean is below this share of it, and is rounding."""

_WINDOW = np.hanning(FRAME).astype(np.float32)


def level(samples: Waveform) -> float:
    """RMS of `samples` (n,) in dBFS, less a constant offset: 0 for a square wave of full scale.

    Minus infinity for digital silence, and for one value throughout.
    """
    if not len(samples):
        return -math.inf
    mean = samples.mean(dtype=np.float64)
    centred = samples - np.float32(mean)
    power = float(np.dot(centred, centred)) / len(samples)
    return 10 * math.log10(power) if power > (OFFSET * mean) ** 2 else -math.inf


def clipped(samples: Waveform) -> float:
    """Share of `samples` (n,) at full scale or beyond, 0 to 1.

    Of speech whose largest sample is at full scale it is some 1e-5; amplified to half as much again and cut off, 1e-3.
    """
    # Most recordings never get there, which their extremes tell without a copy.
    if samples.max(initial=0.0) < FULL and samples.min(initial=0.0) > -FULL:
        return 0.0
    return float(np.count_nonzero(np.abs(samples) >= FULL)) / len(samples)


def bandwidth(samples: Waveform, rate: int, source_rate: int) -> float | None:
    """The frequency in Hz below which all but a hundredth of the sound in `samples` (n,) lies; None: there is none.

    It is that of the long-term spectrum, above the noise of 16 bits, with each frequency weighted by its square: so
    the cut-off of a telephone, of a codec or of a converter is found under speech, whose power falls with frequency.

    Args:
        rate: of the samples in Hz.
        source_rate: of the recording that they were resampled from; there is nothing above the half of it.
    """
    frames = _frames(samples - np.float32(samples.mean(dtype=np.float64)))
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).mean(axis=0, dtype=np.float64)
    frequencies = np.fft.rfftfreq(FRAME, 1 / rate)
    # By Parseval, noise of power p is p times the window's energy at each frequency.
    above = np.maximum(power - FLOOR * float(np.dot(_WINDOW, _WINDOW)), 0)
    above[frequencies > source_rate / 2] = 0
    weighted = np.cumsum(above * frequencies**2)
    if not weighted[-1] > 0:
        return None
    return float(frequencies[np.searchsorted(weighted, SHARE * weighted[-1])])


def _frames(samples: Waveform) -> Waveform:
    """(up to FRAMES, FRAME) under a window, spread evenly; a segment shorter than one is padded with zeros."""
    count = len(samples) // FRAME
    if count == 0:
        window = np.hanning(len(samples) + 2)[1:-1].astype(np.float32)
        return np.pad(samples * window, (0, FRAME - len(samples)))[None]
    frames = samples[: count * FRAME].reshape(count, FRAME)
    chosen: Waveform = frames[np.linspace(0, count - 1, min(count, FRAMES)).astype(int)] * _WINDOW
    return chosen
