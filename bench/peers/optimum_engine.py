"""optimum's ONNX export of a wav2vec 2.0 branch, run by the same ONNX Runtime as this project's own graph.

optimum-onnx needs an older transformers than this project, so the graph is made by the Python of another environment
(`optimum_export.py`) and run here, as `ORTModelForAudioClassification` would: the whole batch in one call. The graph
begins at 16 kHz, z-normed; what comes before is what transformers' pipeline does and is timed with it, torchaudio's
resampling and Wav2Vec2FeatureExtractor, the resampling over the whole batch instead of clip by clip.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from bench.peers.graphs import Graph, describe
from bench.peers.transformers_engine import RATE, classification_model, feature_extractor
from ser_batch.clips import Waveform
from ser_batch.engines.onnxruntime import start_session
from ser_batch.errors import EngineError

SCRIPT = Path(__file__).with_name("optimum_export.py")
INSTALL = (
    "python -m venv ENV && ENV/bin/pip install 'optimum-onnx[onnxruntime]==0.1.0' transformers==4.57.6 torch==2.13.0"
)
HOW = f"optimum-onnx 0.1.0, the latest, needs transformers < 4.58: {INSTALL}, then --optimum ENV/bin/python"
"""How optimum comes to be compared; 1.3 GB with the CPU build of torch."""


@dataclass(frozen=True)
class OptimumGraph:
    """What optimum exported."""

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
    packages = json.loads(_run([python, SCRIPT, folder / "saved", folder]).rpartition("\n")[2])
    path = folder / "model.onnx"
    return OptimumGraph(path, describe(path, packages, "16 kHz, z-normed"))


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
        """Branch name -> (B, C) probabilities."""
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
    """What another environment's Python wrote; this project's code is hidden from it, and so is the network."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**clean, "HF_HUB_OFFLINE": "1"})
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be run", got=error.strerror, remedy=f"Make it: {INSTALL}.") from error
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise EngineError(f"optimum fails in {command[0]}", got=reason, remedy=f"An environment that works: {INSTALL}.")
    return done.stdout.strip()
