"""The spectrogram branch: log-mel → residual CNN ∥ Transformer → cross-attention → 8 emotions.

Source: paper, section III-D; every shape named there is asserted in tests/training/models/test_spectrogram.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.config import SpectrogramConfig, to_dict
from training.models.frontends import LogMel


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm beside a 1×1 skip, then ReLU, 2×2 max-pooling and dropout.

    The paper fixes two convolutions, batch norm, ReLU and a skip connection; their order is the usual one (ours).

    Shape: (B, C_in, F, T) → (B, C_out, F // 2, T // 2).
    """

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.pool(torch.relu(self.body(x) + self.skip(x))))


class Standardise(nn.Module):
    """(x − mean) / std with statistics of the training clips, which are part of the weights.

    Shape: (B, F, T) → (B, F, T); `mean` and `std` are (F, T), (F, 1) or (1, 1).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def fit(self, features: Tensor) -> None:
        """Take mean and population standard deviation from `features` (N, F, T) of the training clips."""
        over = [0] + [axis + 1 for axis in range(2) if self.mean.shape[axis] == 1]
        std, mean = torch.std_mean(features.double(), dim=over, keepdim=True, correction=0)
        self.mean.copy_(mean[0])
        self.std.copy_(std[0].clamp(min=1e-3))  # dB; a band that never moves would else be blown up

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class SpectrogramBranch(nn.Module):
    """The paper's CNN–Transformer branch with its front-end inside.

    Shape: waveform (B, 144000) float32 in [-1, 1], 48 kHz → logits (B, classes).
    """

    def __init__(self, config: SpectrogramConfig, classes: int, samples: int = 144_000) -> None:
        super().__init__()
        self.config = config
        self.frontend = LogMel(config.mel)
        bands, frames = config.mel.n_mels, config.mel.frames(samples)
        shapes = {"pixel": (bands, frames), "bin": (bands, 1), "global": (1, 1)}
        self.standardise = Standardise(shapes[config.standardise])
        widths = (1, *config.channels)
        self.cnn = nn.Sequential(
            *(ResidualBlock(a, b, config.cnn_dropout) for a, b in zip(widths, config.channels, strict=False))
        )
        width = bands // config.pool[0]
        self.pool = nn.MaxPool2d(config.pool)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, config.feed_forward, config.transformer_dropout, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        halvings = 2 ** len(config.channels)
        flat = config.channels[-1] * (bands // halvings) * (frames // halvings)
        self.query = nn.Linear(flat, width)
        self.cross_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.classifier = nn.Linear(flat + width, classes)

    def features_settings(self) -> dict[str, Any]:
        """Those of the front-end."""
        return to_dict(self.config.mel)

    def features_state(self) -> dict[str, Tensor]:
        """Nothing: the settings alone decide `features`."""
        return {}

    def features(self, waveform: Tensor) -> Tensor:
        """The log-mel spectrogram (B, 128, 278) in dB: fixed, so training computes it once."""
        return self.frontend(waveform)

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of log-mel spectrograms (B, 128, 278) in dB."""
        x = self.standardise(features)[:, None]
        local = self.cnn(x).flatten(1)  # (B, 8704)
        sequence = self.transformer(self.pool(x)[:, 0].transpose(1, 2))  # (B, 69, 64)
        query = self.query(local)[:, None]
        attended, _ = self.cross_attention(query, sequence, sequence, need_weights=False)
        return self.classifier(torch.cat([local, attended[:, 0]], dim=1))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.features(waveform))
