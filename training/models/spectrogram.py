"""The spectrogram branch: log-mel → residual CNN ∥ Transformer → cross-attention → 8 emotions.

Source: paper, section III-D; every shape named there is asserted in tests/training/models/test_spectrogram.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.config import SpectrogramConfig, to_dict
from training.models.dropout import Dropout
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
        self.dropout = Dropout(dropout)

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

    def fit(self, features: Tensor | Iterable[Tensor]) -> None:
        """Take mean and population standard deviation from `features` (N, F, T), or batches of them, to train on."""
        over = [0] + [axis + 1 for axis in range(2) if self.mean.shape[axis] == 1]
        count, total, squares = 0, 0.0, 0.0
        for batch in [features] if isinstance(features, Tensor) else features:
            for part in batch.split(64):  # in double precision, which all clips at once would need room for
                part = part.double()
                count += part.numel() // self.mean.numel()
                total = total + part.sum(dim=over, keepdim=True)[0]
                squares = squares + part.square().sum(dim=over, keepdim=True)[0]
        mean = total / count
        self.mean.copy_(mean)
        # dB; a band that never moves would else be blown up
        self.std.copy_((squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def sinusoids(steps: int, width: int) -> Tensor:
    """Sines beside cosines of wavelengths from 2π to 20,000π steps, (steps, width) (Vaswani et al. 2017, 3.5)."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


class Views(NamedTuple):
    """What the two arms of the branch make of a clip, on its way to the classifier."""

    local: Tensor
    """(B, 8704) of the CNN, as the classifier sees it."""
    attended: Tensor
    """(B, 64) of Transformer and cross-attention, as the classifier sees it; (B, 0) without them."""
    attention: Tensor | None
    """(B, heads, 69) weights of the cross-attention, where they are asked for."""


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
        halvings = 2 ** len(config.channels)
        flat = config.channels[-1] * (bands // halvings) * (frames // halvings)
        width = bands // config.pool[0] if config.layers else 0
        if config.layers:
            self._add_arm(flat, width, frames)
        self.classifier = nn.Linear(flat + width, classes)

    def _add_arm(self, flat: int, width: int, frames: int) -> None:
        """The Transformer over (B, frames / pool, width) and the cross-attention, asked by the (B, flat) of the CNN."""
        config = self.config
        self.pool = nn.MaxPool2d(config.pool)
        self._place(frames // config.pool[1], width)
        pre = config.norm == "pre"
        layer = nn.TransformerEncoderLayer(
            width, config.heads, config.feed_forward, config.transformer_dropout, batch_first=True, norm_first=pre
        )
        for place in ("dropout", "dropout1", "dropout2"):
            setattr(layer, place, Dropout(config.transformer_dropout))
        last = nn.LayerNorm(width) if pre else None
        self.transformer = nn.TransformerEncoder(layer, config.layers, last, enable_nested_tensor=False)
        self.query = nn.Linear(flat, width)
        self.cross_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)

    def _place(self, steps: int, width: int) -> None:
        """Make the table of positions (steps, width): fixed and no part of the weights, trained, or none."""
        if self.config.positions == "learned":
            self.positions = nn.Parameter(0.02 * torch.randn(steps, width))
        else:
            table = sinusoids(steps, width) if self.config.positions == "sinusoidal" else None
            self.register_buffer("positions", table, persistent=False)

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
        views = self.views(features)
        return self.classifier(torch.cat([views.local, views.attended], dim=1))

    def views(self, features: Tensor, weights: bool = False) -> Views:
        """The two parts of the classifier's input; with `weights`, and what the cross-attention looks at."""
        x = self.standardise(features)[:, None]
        local = self.cnn(x).flatten(1)  # (B, 8704)
        if self.config.balance:
            local = nn.functional.layer_norm(local, local.shape[1:])
        if not self.config.layers:
            return Views(local, local[:, :0], None)
        steps = self.pool(x)[:, 0].transpose(1, 2)  # (B, 69, 64)
        sequence = self.transformer(steps if self.positions is None else steps + self.positions)
        query = self.query(local)[:, None]
        found, attention = self.cross_attention(
            query, sequence, sequence, need_weights=weights, average_attn_weights=False
        )
        attended = found[:, 0]
        if self.config.residual_mean:
            attended = attended + sequence.mean(dim=1)
        if self.config.balance:
            attended = nn.functional.layer_norm(attended, attended.shape[1:])
            local = local * math.sqrt(attended.shape[1] / local.shape[1])
        return Views(local, attended, attention[:, :, 0] if attention is not None else None)

    def shares(self, views: Views) -> tuple[Tensor, Tensor]:
        """The shares (B, classes) each of CNN and Transformer arm in the logits; with the bias they add up to them."""
        local, attended = self.classifier.weight.split([views.local.shape[1], views.attended.shape[1]], dim=1)
        return views.local @ local.T, views.attended @ attended.T

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.features(waveform))
