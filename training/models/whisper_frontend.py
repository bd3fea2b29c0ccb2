"""Whisper's log-mel spectrogram as a torch module of plain products and slices.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), section 2.2, and
transformers.WhisperFeatureExtractor, which the tests compare with. Unlike there, a clip is not padded to 30 s: its
loudest bin, to which the floor is relative, is the same, and the frames after the clip would only be silence.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from training.models.frontends import mel_bank

SAMPLE_RATE, N_FFT, HOP = 16_000, 400, 160
FLOOR = 1e-10
"""Mel power below which the logarithm is clamped."""
RANGE = 8.0
"""Decades below the clip's loudest bin at which it is cut off: 80 dB."""


def windowed_dft() -> np.ndarray:
    """The DFT of a frame under a periodic Hann window, (400, 402) float64: 201 real columns, 201 imaginary ones."""
    n, k = np.arange(N_FFT), np.arange(N_FFT // 2 + 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
    angle = 2 * np.pi * np.outer(n, k) / N_FFT
    return window[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)


class WhisperLogMel(nn.Module):
    """Whisper's input features of a clip that is not padded.

    A frame of 400 samples every 160 is two and a half blocks of 160, so framing is three slices of blocks.

    Shape: (B, T) float32 at 16 kHz → (B, n_mels, T // 160), (log₁₀ of the mel power + 4) / 4; with `relative` of the
    mel power over that of the clip's loudest bin, so from −1 to 1 whatever the clip's level, which is the range that
    Whisper was trained in.
    """

    def __init__(self, n_mels: int = 80, relative: bool = False) -> None:
        super().__init__()
        self.relative = relative
        filters = mel_bank(SAMPLE_RATE, N_FFT, n_mels, 0.0, SAMPLE_RATE / 2, "slaney", "slaney")
        for name, value in (("dft", windowed_dft()), ("filters", filters)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[1] // HOP
        padded = nn.functional.pad(waveform[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[:, 0]
        blocks = padded[:, : (frames + 2) * HOP].reshape(-1, frames + 2, HOP)
        framed = torch.cat([blocks[:, :frames], blocks[:, 1:-1], blocks[:, 2:, : N_FFT - 2 * HOP]], dim=2)
        real, imag = (framed @ self.dft).split(N_FFT // 2 + 1, dim=2)
        mel = (real * real + imag * imag) @ self.filters
        if self.relative:
            mel = mel / mel.amax(dim=(1, 2), keepdim=True).clamp(min=FLOOR)
            return ((mel.clamp(min=10**-RANGE).log() * (1 / math.log(10.0)) + 4.0) / 4.0).transpose(1, 2)
        logarithm = mel.clamp(min=FLOOR).log() * (1 / math.log(10.0))
        loudest = logarithm.amax(dim=(1, 2), keepdim=True)
        return ((torch.maximum(logarithm, loudest - RANGE) + 4.0) / 4.0).transpose(1, 2)
