"""The context branch: 48 → 16 kHz → z-norm → wav2vec 2.0 → mean over time → MLP → 8 emotions.

Source: paper, section III-C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ser_batch.errors import TrainingError
from training.compat import repair_torchaudio
from training.config import ContextConfig
from training.frontends import Decimate

repair_torchaudio()
from transformers import Wav2Vec2Config, Wav2Vec2Model  # noqa: E402


def zero_mean_unit_variance(waveform: Tensor) -> Tensor:
    """(x − mean) / sqrt(var + 1e-7) a clip, population variance: what wav2vec 2.0's feature extractor does."""
    centred = waveform - waveform.mean(dim=1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-7)


def load_backbone(config: ContextConfig) -> Wav2Vec2Model:
    """The wav2vec 2.0 encoder that the configuration names: a checkpoint, or random weights for `scratch`."""
    quiet = {"apply_spec_augment": config.spec_augment, "attn_implementation": "eager"}
    if config.backbone == "scratch":
        return Wav2Vec2Model(Wav2Vec2Config(**config.architecture, **quiet))
    return Wav2Vec2Model.from_pretrained(config.backbone, **quiet)


class Wav2Vec2Branch(nn.Module):
    """wav2vec 2.0 with the paper's head, its front-end inside.

    Shape: waveform (B, 144000) float32 in [-1, 1], 48 kHz → logits (B, classes).

    Raises TrainingError for more unfrozen layers than there are, and for settings it does not implement.
    """

    def __init__(self, config: ContextConfig, classes: int, encoder: Wav2Vec2Model | None = None) -> None:
        super().__init__()
        if config.pooling != "mean" or config.layer_weights:
            raise TrainingError(
                "the wav2vec 2.0 branch pools the mean of the last layer only",
                got=f"pooling {config.pooling!r}, layer_weights {config.layer_weights}",
            )
        self.config = config
        self.decimate = Decimate(3)
        self.encoder = encoder if encoder is not None else load_backbone(config)
        width, (first, second) = self.encoder.config.hidden_size, config.hidden
        self.classifier = nn.Sequential(
            nn.Linear(width, first),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(second, classes),
        )
        self._freeze()

    def _freeze(self) -> None:
        """Leave trainable what III-C.2 trains: the top layers, the feature projection and the classifier."""
        layers, unfrozen = self.encoder.encoder.layers, self.config.unfrozen_layers
        if not -1 <= unfrozen <= len(layers):
            raise TrainingError(
                "unfrozen_layers counts Transformer layers from the top",
                got=unfrozen,
                expected=f"-1 … {len(layers)}",
            )
        if unfrozen >= 0:
            self.encoder.requires_grad_(False)
            for part in [self.encoder.feature_projection, *layers[len(layers) - unfrozen :]]:
                part.requires_grad_(True)
        self.encoder.feature_extractor.requires_grad_(not self.config.freeze_feature_encoder)

    def features(self, waveform: Tensor) -> Tensor:
        """What no gradient reaches, so that training computes it once.

        Shape: (B, 144000) → frames (B, channels, 149) of the frozen convolutional encoder, or the normalised
        16 kHz waveform (B, 48000) where that encoder is trained.
        """
        normalised = zero_mean_unit_variance(self.decimate(waveform))
        return self.encoder.feature_extractor(normalised) if self.config.freeze_feature_encoder else normalised

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of `features`."""
        if not self.config.freeze_feature_encoder:
            features = self.encoder.feature_extractor(features)
        frames, _ = self.encoder.feature_projection(features.transpose(1, 2))
        frames = self.encoder._mask_hidden_states(frames)
        hidden = self.encoder.encoder(frames).last_hidden_state
        return self.classifier(hidden.mean(dim=1))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.features(waveform))
