"""Export a saved classifier to ONNX by optimum; run by the Python of another environment, which has optimum-onnx.

    python optimum_export.py FOLDER OUT        makes OUT/model.onnx and prints one line of JSON: package → version

`save_pretrained` wrote FOLDER, from `bench.peers.transformers_engine.classification_model`. This script imports nothing
of the project. `onnx_export_from_model` is what `optimum-cli export onnx` runs once it has loaded a model; this script
loads the model itself, since its classifier is the paper's MLP and the class that the command would load has one layer.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from optimum.exporters.onnx import onnx_export_from_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, Wav2Vec2ForSequenceClassification

PACKAGES = ("optimum-onnx", "optimum", "transformers", "torch")


def export(folder: Path, out: Path) -> dict[str, str]:
    """Write `out`/model.onnx, from (B, samples) at 16 kHz, z-normed, to logits (B, C); the versions that made it."""
    onnx_export_from_model(load(folder), out, task="audio-classification", do_validation=False)
    return {name: version(name) for name in PACKAGES}


def load(folder: Path) -> Wav2Vec2ForSequenceClassification:
    """The saved model; RuntimeError if a weight is missing or left over."""
    weights = load_file(folder / "model.safetensors")
    model = Wav2Vec2ForSequenceClassification._from_config(AutoConfig.from_pretrained(folder))
    model.classifier = classifier(weights)
    model.load_state_dict(weights)
    return model.eval()


def classifier(weights: dict[str, Tensor]) -> nn.Sequential:
    """An MLP of the shapes of `weights`: linear where a position has one, ReLU between."""
    shapes = {key: value.shape for key, value in weights.items() if key.startswith("classifier.") and value.ndim == 2}
    linear = {int(key.split(".")[1]): nn.Linear(*reversed(shape)) for key, shape in shapes.items()}
    return nn.Sequential(*(linear.get(place, nn.ReLU()) for place in range(max(linear) + 1)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(export(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
