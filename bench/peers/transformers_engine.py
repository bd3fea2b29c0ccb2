"""Hugging Face's ways to run a wav2vec 2.0 branch: transformers' pipeline, and optimum's ONNX export of it.

transformers' model is Wav2Vec2ForSequenceClassification, whose head is linear → mean over time → linear; the paper's is
mean over time → linear → ReLU → linear → ReLU → linear. Both first maps are linear, so mean and first layer may change
places: `projector` is our first linear layer, and `classifier` the rest of our MLP in the place of one linear layer.
The function is the same; the projector costs as much as 149 frames instead of one mean (0.06 of 42 GFLOP at base size).
The pipeline's own feature extractor normalises, its torchaudio resamples 48 → 16 kHz clip by clip.

optimum-onnx needs an older transformers than this project, so the Python of another environment makes its graph
(`optimum_export.py`). The same ONNX Runtime as for this project's graph runs it, as `ORTModelForAudioClassification`
would: the whole batch in one call. The graph begins at 16 kHz, z-normed; the resampling and the feature extractor
before it are timed with it, the resampling over the whole batch instead of clip by clip.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench.peers.models import Graph, describe_graph
from ser_batch.clips import Waveform
from ser_batch.engines.onnxruntime import start_session
from ser_batch.errors import EngineError
from ser_batch.strict_json import parse
from training.models import repair_torchaudio

repair_torchaudio()
import transformers  # noqa: E402

RATE = 16_000
SCRIPT = Path(__file__).with_name("optimum_export.py")
INSTALL = (
    "python -m venv ENV && ENV/bin/pip install 'optimum-onnx[onnxruntime]==0.1.0' transformers==4.57.6 torch==2.13.0"
)
HOW = f"optimum-onnx 0.1.0, the latest, needs transformers < 4.58: {INSTALL}, then --optimum ENV/bin/python"
"""How optimum comes to be compared; 1.3 GB with the CPU build of torch."""


class TransformersEngine:
    """One wav2vec 2.0 branch in transformers' pipeline, float32 on the CPU or a GPU.

    Args:
        branch: a training.models.context module whose encoder is wav2vec 2.0, mean-pooled.
        sample_rate: Hz of the waveforms.

    Raises:
        EngineError: the branch is another model, which has no equal in transformers.
    """

    name, precision = "transformers pipeline", "fp32"

    def __init__(self, name: str, branch: Any, *, sample_rate: int, device: str = "cpu") -> None:
        self._branch, self._rate, self.device = name, sample_rate, device
        model = classification_model(branch)
        self._pipeline = transformers.pipeline(
            "audio-classification", model=model, feature_extractor=feature_extractor(branch), device=device
        )

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name → (B, C) probabilities."""
        inputs = [{"raw": clip, "sampling_rate": self._rate} for clip in waveform]
        found = self._pipeline(inputs, batch_size=len(inputs), top_k=None)
        rows = np.empty((len(found), len(found[0])), dtype=np.float32)
        for row, scores in zip(rows, found, strict=True):
            for one in scores:
                row[int(one["label"])] = one["score"]
        return {self._branch: rows}

    def close(self) -> None:
        """Release the weights."""
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
    """transformers' front-end of `branch`, from 16 kHz on; it z-norms if the branch does."""
    normalises = not isinstance(getattr(branch, "frontend", None), nn.Identity)
    return transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=RATE, do_normalize=normalises, return_attention_mask=False
    )


@dataclass(frozen=True)
class OptimumGraph:
    """optimum's export of a branch."""

    path: Path
    facts: Graph


def check_python(python: Path) -> None:
    """EngineError unless `python` can import optimum's exporter and what it needs."""
    _run([python, "-c", "import onnxruntime, optimum.exporters.onnx"])


def export_by_optimum(python: Path, branch: Any, folder: Path) -> OptimumGraph:
    """`branch` (a training.models.context module) exported by the optimum of `python` to `folder`, which is made.

    Raises:
        EngineError: the branch has no equal in transformers, or optimum cannot export it.
    """
    folder.mkdir(parents=True)
    transformers.utils.logging.disable_progress_bar()
    classification_model(branch).save_pretrained(folder / "saved")
    made_by = _run([python, SCRIPT, folder / "saved", folder]).rpartition("\n")[2]
    packages = parse(made_by, f"the output of {SCRIPT.name}", EngineError)
    path = folder / "model.onnx"
    return OptimumGraph(path, describe_graph(path, packages, "16 kHz, z-normed"))


class OptimumEngine:
    """One branch in optimum's graph, float32 on the CPU.

    Args:
        branch: the module that was exported.
        sample_rate: Hz of the waveforms.
        threads: of ONNX Runtime; None lets it choose.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
    """

    name, precision, device = "optimum onnxruntime", "fp32", "cpu"

    def __init__(
        self, name: str, graph: OptimumGraph, branch: Any, *, sample_rate: int, threads: int | None = None
    ) -> None:
        self._branch, self._rate = name, sample_rate
        self._extractor = feature_extractor(branch)
        self._session = start_session(graph.path, threads=threads)

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name → (B, C) probabilities."""
        from torchaudio.functional import resample

        audio = resample(torch.from_numpy(waveform), self._rate, RATE).numpy()
        values = self._extractor(list(audio), sampling_rate=RATE, return_tensors="np")["input_values"]
        (logits,) = self._session.run(None, {"input_values": values})
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {self._branch: raised / raised.sum(axis=1, keepdims=True)}

    def close(self) -> None:
        """Release the session."""
        del self._session


def _run(command: Sequence[str | Path]) -> str:
    """The output of another environment's Python, which sees neither this project's code nor the network."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**clean, "HF_HUB_OFFLINE": "1"})
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be run", got=error.strerror, remedy=f"Make it: {INSTALL}.") from error
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise EngineError(f"optimum fails in {command[0]}", got=reason, remedy=f"An environment that works: {INSTALL}.")
    return done.stdout.strip()
