"""transformers' `pipeline("audio-classification")` with the weights of a wav2vec 2.0 branch.

The model is Wav2Vec2ForSequenceClassification, whose head is linear → mean over time → linear; the paper's is mean
over time → linear → ReLU → linear → ReLU → linear. Both first maps are linear, so mean and first layer may change
places: `projector` is our first linear layer, and `classifier` the rest of our MLP in the place of one linear layer.
The function is the same, the projector's cost is that of 149 frames instead of one mean (0.06 of 42 GFLOP at base
size). The pipeline's own feature extractor normalises, its torchaudio resamples 48 → 16 kHz clip by clip.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ser_batch.clips import Waveform
from ser_batch.errors import EngineError
from training.models import repair_torchaudio

repair_torchaudio()
import transformers  # noqa: E402

RATE = 16_000


class TransformersEngine:
    """One wav2vec 2.0 branch in transformers' pipeline, float32 on the CPU or a GPU.

    Args:
        branch: a training.models.context module whose encoder is wav2vec 2.0, mean-pooled.
        sample_rate: Hz of the waveforms.

    Raises:
        EngineError: the branch is another model, which the pipeline has no equal for.
    """

    name, precision = "transformers pipeline", "fp32"

    def __init__(self, name: str, branch: Any, *, sample_rate: int, device: str = "cpu") -> None:
        self._branch, self._rate, self.device = name, sample_rate, device
        model = classification_model(branch)
        self._pipeline = transformers.pipeline(
            "audio-classification", model=model, feature_extractor=feature_extractor(branch), device=device
        )

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities."""
        inputs = [{"raw": clip, "sampling_rate": self._rate} for clip in waveform]
        found = self._pipeline(inputs, batch_size=len(inputs), top_k=None)
        rows = np.empty((len(found), len(found[0])), dtype=np.float32)
        for row, answers in zip(rows, found, strict=True):
            for answer in answers:
                row[int(answer["label"])] = answer["score"]
        return {self._branch: rows}

    def close(self) -> None:
        """Let go of the weights."""
        del self._pipeline


def classification_model(branch: Any) -> Any:
    """Wav2Vec2ForSequenceClassification that computes what `branch` does from 16 kHz on; the weights are shared.

    Raises:
        EngineError: the branch's encoder or head has no equal there.
    """
    encoder = getattr(branch, "encoder", None)
    mlp = getattr(branch, "classifier", None)
    if not isinstance(encoder, transformers.Wav2Vec2Model) or not isinstance(mlp, nn.Sequential):
        raise EngineError("transformers' pipeline is compared on a wav2vec 2.0 branch", got=type(encoder).__name__)
    if branch.config.pooling != "mean" or branch.config.layer_weights:
        raise EngineError("transformers' classifier pools the mean of the last layer only")
    first, rest = mlp[0], [layer for layer in mlp[1:] if not isinstance(layer, nn.Dropout)]
    config = transformers.Wav2Vec2Config.from_dict(encoder.config.to_dict())
    classes = mlp[-1].out_features
    config.update({"classifier_proj_size": first.out_features, "use_weighted_layer_sum": False})
    config.id2label = {index: str(index) for index in range(classes)}
    config.label2id = {str(index): index for index in range(classes)}
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    model.wav2vec2, model.projector, model.classifier = encoder, first, nn.Sequential(*rest)
    return model.eval()


def feature_extractor(branch: Any) -> Any:
    """transformers' front-end of `branch`, from 16 kHz on: it z-norms where the branch does."""
    normalises = not isinstance(getattr(branch, "frontend", None), nn.Identity)
    return transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=RATE, do_normalize=normalises, return_attention_mask=False
    )
