"""The front-ends as torch modules: offset removal, 48 → 16 kHz decimation and the 128 × 278 log-mel spectrogram.

They live inside the branches and so inside the exported graphs: training and serving cannot drift apart.
Both are written in plain products and slices, which every runtime executes well, instead of an STFT operator.

Sources: paper, sections III-B and III-D; torchaudio's `resample` (windowed sinc, Hann) and `MelSpectrogram`
(HTK mels, power) are the references the tests compare with.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from training.config import LogMelConfig


def sinc_kernel(factor: int, lowpass_width: int = 6, rolloff: float = 0.99) -> np.ndarray:
    """Low-pass kernel (taps,) float64 for decimation by `factor`: a sinc under a Hann window, unit gain at DC.

    The same taps as torchaudio's `resample(x, factor, 1)` with its default width and roll-off; the cut-off is
    `rolloff` times the new Nyquist frequency and the sinc keeps `lowpass_width` zero crossings a side.
    """
    half = math.ceil(lowpass_width * factor / rolloff)
    t = np.arange(-half, half + factor) / factor * rolloff
    t = np.clip(t, -lowpass_width, lowpass_width)
    window = np.cos(t * math.pi / lowpass_width / 2) ** 2
    return np.sinc(t) * window * rolloff / factor


class Centre(nn.Module):
    """The clip without its mean; zeros past a recording's end have no offset and stay.

    Shape: (B, T) → (B, T).
    """

    def forward(self, waveform: Tensor) -> Tensor:
        places = torch.arange(1, waveform.shape[1] + 1, dtype=torch.float32, device=waveform.device)
        length = (waveform.abs().sign() * places).amax(dim=1, keepdim=True)  # up to the last sample that is not zero
        inside = (length + 1 - places).clamp(0.0, 1.0)
        for _ in range(2):  # one sum of so many float32 leaves an offset that a quiet clip's lowest band would show
            waveform = waveform - waveform.sum(dim=1, keepdim=True) / length.clamp(min=1.0) * inside
        return waveform


class Decimate(nn.Module):
    """Decimation by an integer factor as one strided convolution.

    Shape: (B, T) → (B, ceil(T / factor)).
    """

    def __init__(self, factor: int = 3) -> None:
        super().__init__()
        self.factor = factor
        kernel = sinc_kernel(factor)
        self.half = (len(kernel) - factor) // 2
        self.register_buffer("kernel", torch.tensor(kernel, dtype=torch.float32)[None, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        length = -(-waveform.shape[1] // self.factor)
        padded = nn.functional.pad(waveform[:, None], (self.half, self.half + self.factor))
        return nn.functional.conv1d(padded, self.kernel, stride=self.factor)[:, 0, :length]


def mel_to_hertz(mel: np.ndarray, scale: str) -> np.ndarray:
    """Mel values in `scale` ("htk" or "slaney") as Hz."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    linear = mel * 200.0 / 3  # Slaney: linear below 1 kHz (mel 15), logarithmic above
    return np.where(mel < 15, linear, 1000.0 * np.exp((mel - 15) * math.log(6.4) / 27.0))


def hertz_to_mel(hertz: float, scale: str) -> float:
    """One frequency in Hz on the mel `scale` ("htk" or "slaney")."""
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    return hertz * 3 / 200.0 if hertz < 1000 else 15 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def mel_bank(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, scale: str = "htk", norm: str = "none"
) -> np.ndarray:
    """Triangular mel filters (n_fft // 2 + 1, n_mels) float64, each bin's power weight in each band.

    `scale` is "htk" or "slaney"; `norm` "slaney" gives every triangle the same area, "none" the same height.
    """
    hertz = mel_to_hertz(np.linspace(hertz_to_mel(f_min, scale), hertz_to_mel(f_max, scale), n_mels + 2), scale)
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    rising = (bins[:, None] - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins[:, None]) / (hertz[2:] - hertz[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2.0 / (hertz[2:] - hertz[:-2])
    return filters


def mel_filters(config: LogMelConfig) -> np.ndarray:
    """The spectrogram branch's mel filters (n_fft // 2 + 1, n_mels) float64."""
    return mel_bank(
        config.sample_rate,
        config.n_fft,
        config.n_mels,
        config.f_min,
        config.f_max,
        config.mel_scale,
        config.mel_norm,
    )


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels, uncentred, from products and slices only.

    The DFT of a frame is a Cooley–Tukey step; for 2048 = 64 × 32, with n = 32 n₁ + n₂ and k = k₁ + 64 k₂,

        X[k₁ + 64 k₂] = Σ_n₂ W₃₂^(n₂ k₂) · W₂₀₄₈^(n₂ k₁) · Σ_n₁ W₆₄^(n₁ k₁) x[32 n₁ + n₂],

    two small matrix products with a twiddle between. A real frame needs k₁ = 0 … 32 only: the other bins are
    complex conjugates of these, so their powers are the same numbers, and the mel matrix is laid out to match. Only
    those k₂ are computed that hold a bin of some band, which are a third where the bands end at 8 of 24 kHz, and the
    frame is split where that makes the least work.
    A hop of n_fft / 4 makes a frame four consecutive blocks, so framing is four slices; of n_fft / 2, two.

    Shape: (B, T) at `sample_rate` → (B, n_mels, (T − n_fft) // hop + 1), dB relative to 1, or to the clip's loudest
    band; with that reference a clip that never reaches `floor` is silent, and −`dynamic_range` everywhere.
    """

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.centre = Centre() if config.reference == "clip" else nn.Identity()
        filters = mel_filters(config)
        splits = {inner: _folded_filters(filters, inner) for inner in (16, 32, 64) if config.n_fft % (2 * inner) == 0}
        self.inner = min(splits, key=lambda inner: _products(splits[inner], config.n_fft // inner, inner))
        folded, outer = splits[self.inner], config.n_fft // self.inner
        kept = folded.any(axis=(0, 2))
        k1, n1, n2 = np.arange(len(folded)), np.arange(outer), np.arange(self.inner)
        first = np.exp(-2j * np.pi * np.outer(k1, n1) / outer)
        twiddle = np.exp(-2j * np.pi * np.outer(k1, n2) / config.n_fft)
        second = np.exp(-2j * np.pi * np.outer(n2, n2[kept]) / self.inner)
        self._constant("first", np.concatenate([first.real, first.imag]))
        self._constant("twiddle_real", twiddle.real)
        self._constant("twiddle_imag", twiddle.imag)
        self._constant("second", np.block([[second.real, second.imag], [-second.imag, second.real]]))
        self._constant("window", 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft))
        self._constant("filters", folded[:, kept].reshape(-1, config.n_mels))

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        hop, n_fft, waveform = self.config.hop, self.config.n_fft, self.centre(waveform)
        frames, parts = self.config.frames(waveform.shape[1]), n_fft // hop
        blocks = waveform[:, : (frames + parts - 1) * hop].reshape(-1, frames + parts - 1, hop)
        framed = torch.cat([blocks[:, i : i + frames] for i in range(parts)], dim=2) * self.window
        stage = self.first @ framed.reshape(-1, frames, n_fft // self.inner, self.inner)  # (B, frames, 2 · rows, inner)
        real, imag = stage.split(self.twiddle_real.shape[0], dim=2)
        turned = torch.cat(
            [
                real * self.twiddle_real - imag * self.twiddle_imag,
                real * self.twiddle_imag + imag * self.twiddle_real,
            ],
            dim=3,
        )
        spectrum = turned @ self.second  # (B, frames, rows, real kept | imaginary kept)
        squared = spectrum * spectrum
        kept = self.second.shape[1] // 2
        power = (squared[..., :kept] + squared[..., kept:]).flatten(2)
        mel, floor = power @ self.filters, self.config.floor
        if self.config.reference == "clip":
            mel = mel / mel.amax(dim=(1, 2), keepdim=True).clamp(min=floor)
            floor = 10 ** (-self.config.dynamic_range / 10)
        return (10.0 / math.log(10.0)) * mel.clamp(min=floor).log().transpose(1, 2)


def _folded_filters(filters: np.ndarray, inner: int) -> np.ndarray:
    """Mel filters (n_fft / 2 + 1, n_mels) by k₁ and k₂: those of bin k₁ + (n_fft / inner) k₂ or of its conjugate."""
    n_fft = 2 * (len(filters) - 1)
    outer = n_fft // inner
    folded, seen = np.zeros((outer // 2 + 1, inner, filters.shape[1])), set()
    for k1, k2 in np.ndindex(folded.shape[:2]):
        k = k1 + outer * k2
        k = min(k, n_fft - k)
        if k not in seen:  # the first and the last k₁ hold both a bin and its conjugate
            seen.add(k)
            folded[k1, k2] = filters[k]
    return folded


def _products(folded: np.ndarray, outer: int, inner: int) -> int:
    """Multiplications of a frame: the first product, the second, the mel bank."""
    rows, kept = len(folded), int(folded.any(axis=(0, 2)).sum())
    return 2 * rows * outer * inner + rows * 2 * inner * 2 * kept + rows * kept * folded.shape[2]


WHISPER_RATE, WHISPER_FFT, WHISPER_HOP = 16_000, 400, 160
"""Hz, and samples of a frame and between frames, of Whisper's own front-end."""
WHISPER_FLOOR = 1e-10
"""Mel power below which Whisper's logarithm is clamped."""
WHISPER_RANGE = 8.0
"""Decades below the clip's loudest bin at which it is cut off: 80 dB."""


def windowed_dft() -> np.ndarray:
    """The DFT of a frame under a periodic Hann window, (400, 402) float64: 201 real columns, 201 imaginary ones."""
    n, k = np.arange(WHISPER_FFT), np.arange(WHISPER_FFT // 2 + 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / WHISPER_FFT)
    angle = 2 * np.pi * np.outer(n, k) / WHISPER_FFT
    return window[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)


class WhisperLogMel(nn.Module):
    """Whisper's input features, from plain products and slices, of a clip that is not padded.

    Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), section 2.2, and
    transformers.WhisperFeatureExtractor, which the tests compare with. That one pads a clip to 30 s; the loudest bin,
    to which the floor is relative, is the same without, and the frames after the clip would only be silence.

    A frame of 400 samples every 160 is two and a half blocks of 160, so framing is three slices of blocks.

    Shape: (B, T) float32 at 16 kHz → (B, n_mels, T // 160), (log₁₀ of the mel power + 4) / 4; with `relative` of the
    mel power over that of the clip's loudest bin, so from −1 to 1 whatever the clip's level, which is the range that
    Whisper was trained in.
    """

    def __init__(self, n_mels: int = 80, relative: bool = False) -> None:
        super().__init__()
        self.relative = relative
        filters = mel_bank(WHISPER_RATE, WHISPER_FFT, n_mels, 0.0, WHISPER_RATE / 2, "slaney", "slaney")
        for name, value in (("dft", windowed_dft()), ("filters", filters)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[1] // WHISPER_HOP
        padded = nn.functional.pad(waveform[:, None], (WHISPER_FFT // 2, WHISPER_FFT // 2), mode="reflect")[:, 0]
        blocks = padded[:, : (frames + 2) * WHISPER_HOP].reshape(-1, frames + 2, WHISPER_HOP)
        framed = torch.cat([blocks[:, :frames], blocks[:, 1:-1], blocks[:, 2:, : WHISPER_FFT - 2 * WHISPER_HOP]], dim=2)
        real, imag = (framed @ self.dft).split(WHISPER_FFT // 2 + 1, dim=2)
        mel = (real * real + imag * imag) @ self.filters
        if self.relative:
            mel = mel / mel.amax(dim=(1, 2), keepdim=True).clamp(min=WHISPER_FLOOR)
            return ((mel.clamp(min=10**-WHISPER_RANGE).log() * (1 / math.log(10.0)) + 4.0) / 4.0).transpose(1, 2)
        logarithm = mel.clamp(min=WHISPER_FLOOR).log() * (1 / math.log(10.0))
        loudest = logarithm.amax(dim=(1, 2), keepdim=True)
        return ((torch.maximum(logarithm, loudest - WHISPER_RANGE) + 4.0) / 4.0).transpose(1, 2)
