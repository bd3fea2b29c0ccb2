"""The trained branches in torch, as an engine: the first link of the chain that a certificate is about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ser_batch.clips import Waveform
from ser_batch.errors import EngineError
from training.runs import Run


class TorchEngine:
    """A finished run, eager, in float32 on the CPU."""

    name = "torch"
    precision = "fp32"
    device = "cpu"

    def __init__(self, run: Run) -> None:
        self._branches = dict(run.branches)

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._branches:
            raise EngineError("this engine has been closed")
        with torch.inference_mode():
            sound = torch.from_numpy(waveform)
            return {name: branch(sound).softmax(dim=1).numpy() for name, branch in self._branches.items()}

    def close(self) -> None:
        """Release the branches."""
        self._branches.clear()
