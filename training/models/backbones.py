"""Speech encoders of transformers, taken apart: front-end, convolutions, projection, Transformer layers, last norm.

The context branch needs the parts because it trains some and computes the others once. A family is how one kind of
model is taken apart; in evaluation mode its parts in a row are equal to the model's own forward (tested). The model
itself stays whole inside the branch, so its tensors keep the names they have in public checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ser_batch.errors import TrainingError
from training.models import repair_torchaudio
from training.models.frontends import Centre, Decimate, WhisperLogMel

repair_torchaudio()
import transformers  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

ENCODER_RATE = 16_000
"""Hz of what every family takes."""
SILENCE = 1e-14
"""Mean power, −140 dB of full scale, below which a clip is not brought to the level of others."""
SPEECH = 0.05
"""Deviation that clips are brought to where an encoder takes them as they are: −26 dB of full scale (ITU-T P.56)."""


class ZeroMeanUnitVariance(nn.Module):
    """(x − mean) / sqrt(var + 1e-7) of each clip, population variance: what wav2vec 2.0's feature extractor does.

    With `level`, the clip's deviation afterwards, the small number that keeps silence finite is a bound instead, which
    no recording reaches: added, it makes quiet recordings quieter still.

    Shape: (B, T) → (B, T).
    """

    def __init__(self, level: float | None = None) -> None:
        super().__init__()
        self.level = level

    def forward(self, waveform: Tensor) -> Tensor:
        centred = waveform - waveform.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        if self.level is None:
            return centred / torch.sqrt(variance + 1e-7)
        return centred * (self.level / torch.sqrt(variance.clamp(min=SILENCE)))


class EncoderInput(nn.Module):
    """A clip as an encoder of waveforms sees it at one level whatever the recording's, for caches.

    Shape: (B, 144000) float32 at 48 kHz → (B, 48000) float16 at ENCODER_RATE, of mean 0 and deviation 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(Centre(), Decimate(3), ZeroMeanUnitVariance(1.0))

    def features(self, waveform: Tensor) -> Tensor:
        """What is cached."""
        return self.steps(waveform).half()

    def features_settings(self) -> dict[str, Any]:
        """None: it is the same for every encoder."""
        return {}

    def features_state(self) -> dict[str, Tensor]:
        """None."""
        return {}


class Family(Protocol):
    """One kind of encoder: its transformers classes and its parts, each a function of the whole model."""

    config: type[transformers.PreTrainedConfig]
    model: type[transformers.PreTrainedModel]
    masks_frames: bool
    """Whether `embed` can mask frames while training (SpecAugment)."""

    def frontend(self, model: Any, normalise: bool, relative: bool = False) -> nn.Module:
        """Waveform (B, T) at 16 kHz → the model's own input, with `relative` at one level whatever the waveform's."""
        ...

    def convolutions(self, model: Any) -> list[nn.Module]:
        """The modules of `convolve`."""
        ...

    def projection(self, model: Any) -> list[nn.Module]:
        """The modules of `embed` that III-C.2 trains; none where the convolutions' output enters the layers."""
        ...

    def layers(self, model: Any) -> nn.ModuleList:
        """The Transformer layers, bottom first."""
        ...

    def convolve(self, model: Any, inputs: Tensor) -> Tensor:
        """The convolutions' output, (B, C, n) or (B, n, D)."""
        ...

    def embed(self, model: Any, frames: Tensor) -> Tensor:
        """The convolutions' output as what enters the first layer, (B, n, D)."""
        ...

    def run(self, model: Any, hidden: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        """The outputs (B, n, D) of layers `start` … `stop` − 1, `hidden` entering the first of them."""
        ...

    def finish(self, model: Any, hidden: Tensor) -> Tensor:
        """The last layer's output as the model's own last hidden state (B, n, D)."""
        ...


class WaveformFamily:
    """wav2vec 2.0, HuBERT and Data2VecAudio: a normalised waveform, convolutions, a projection, layers.

    Sources: Baevski et al. 2020 (wav2vec 2.0), Hsu et al. 2021 (HuBERT), Baevski et al. 2022 (data2vec).
    """

    masks_frames = True

    def __init__(self, config: type[Any], model: type[Any]) -> None:
        self.config, self.model = config, model

    def frontend(self, model: Any, normalise: bool, relative: bool = False) -> nn.Module:
        if relative:
            return ZeroMeanUnitVariance(1.0 if normalise else SPEECH)
        return ZeroMeanUnitVariance() if normalise else nn.Identity()

    def convolutions(self, model: Any) -> list[nn.Module]:
        return [model.feature_extractor]

    def projection(self, model: Any) -> list[nn.Module]:
        return [model.feature_projection]

    def layers(self, model: Any) -> nn.ModuleList:
        return model.encoder.layers

    def convolve(self, model: Any, inputs: Tensor) -> Tensor:
        return model.feature_extractor(inputs)

    def embed(self, model: Any, frames: Tensor) -> Tensor:
        projected = model.feature_projection(frames.transpose(1, 2))
        hidden = model._mask_hidden_states(projected[0] if isinstance(projected, tuple) else projected)
        hidden = hidden + model.encoder.pos_conv_embed(hidden)
        if not _norm_comes_last(model):
            hidden = model.encoder.layer_norm(hidden)
        return model.encoder.dropout(hidden)

    def run(self, model: Any, hidden: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        for layer in self.layers(model)[start:stop]:
            if not _dropped(layer, model.config.layerdrop):
                hidden = layer(hidden, attention_mask=None)
            yield hidden

    def finish(self, model: Any, hidden: Tensor) -> Tensor:
        return model.encoder.layer_norm(hidden) if _norm_comes_last(model) else hidden


class WavLMFamily(WaveformFamily):
    """WavLM: as wav2vec 2.0, with one relative position bias that the first layer holds and all layers gate.

    Source: Chen et al. 2022, section III-B.
    """

    def run(self, model: Any, hidden: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        layers, (batch, frames, _) = self.layers(model), hidden.shape
        if start < stop:
            bias = layers[0].attention.compute_bias(frames, frames)  # (heads, n, n)
            bias = bias[None].expand(batch, -1, -1, -1).reshape(-1, frames, frames)
        for layer in layers[start:stop]:
            if not _dropped(layer, model.config.layerdrop):
                hidden = layer(hidden, attention_mask=None, position_bias=bias)[0]
            yield hidden


class WhisperFamily:
    """Whisper's encoder: log-mel, two convolutions, a table of positions cut to the clip's length, layers, a norm.

    Source: Radford et al. 2022, section 2.2.
    """

    masks_frames = False
    config, model = transformers.WhisperConfig, WhisperEncoder

    def frontend(self, model: Any, normalise: bool, relative: bool = False) -> nn.Module:
        return WhisperLogMel(model.config.num_mel_bins, relative)

    def convolutions(self, model: Any) -> list[nn.Module]:
        return [model.conv1, model.conv2]

    def projection(self, model: Any) -> list[nn.Module]:
        return []

    def layers(self, model: Any) -> nn.ModuleList:
        return model.layers

    def convolve(self, model: Any, inputs: Tensor) -> Tensor:
        frames = nn.functional.gelu(model.conv1(inputs))
        return nn.functional.gelu(model.conv2(frames)).transpose(1, 2)

    def embed(self, model: Any, frames: Tensor) -> Tensor:
        positions = model.embed_positions.weight
        if frames.shape[1] > len(positions):
            raise TrainingError(
                "the clip is longer than Whisper's table of positions",
                got=f"{frames.shape[1]} frames of 20 ms",
                expected=f"at most {len(positions)}",
            )
        hidden = frames + positions[: frames.shape[1]]
        # conv1 tells whether the stem is being trained: a frozen one is in evaluation mode.
        return nn.functional.dropout(hidden, model.config.dropout, model.conv1.training)

    def run(self, model: Any, hidden: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        for layer in model.layers[start:stop]:
            if not _dropped(layer, model.config.encoder_layerdrop):
                hidden = layer(hidden, None)
            yield hidden

    def finish(self, model: Any, hidden: Tensor) -> Tensor:
        return model.layer_norm(hidden)


def _norm_comes_last(model: Any) -> bool:
    """The "stable layer norm" variant of the larger models normalises after the layers instead of before them."""
    return bool(getattr(model.config, "do_stable_layer_norm", False))


def _dropped(layer: nn.Module, probability: float) -> bool:
    """LayerDrop (Fan et al. 2019), of layers that are being trained."""
    return layer.training and probability > 0 and bool(torch.rand([]) < probability)


FAMILIES: dict[str, Family] = {
    "wav2vec2": WaveformFamily(transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "hubert": WaveformFamily(transformers.HubertConfig, transformers.HubertModel),
    "data2vec-audio": WaveformFamily(transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel),
    "wavlm": WavLMFamily(transformers.WavLMConfig, transformers.WavLMModel),
    "whisper": WhisperFamily(),
}
"""By transformers' `model_type`."""


def family_of(model_type: str) -> Family:
    """The family of a transformers `model_type`; TrainingError for one that is not among FAMILIES."""
    if model_type not in FAMILIES:
        raise TrainingError("no such family of speech encoders", got=repr(model_type), expected=", ".join(FAMILIES))
    return FAMILIES[model_type]
