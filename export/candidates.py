"""What `ser-export verify` compares beside the runtimes: the trained run in torch, and precisions emulated on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.bundle import Bundle
from ser_batch.bundle.fusion import Probabilities
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import Waveform
from ser_batch.engines import Engine, backend_version
from ser_batch.errors import EngineError, SerError
from ser_batch.machine import package_version
from ser_batch.verification.compare import Candidate, Candidates, lower_graphs
from ser_batch.verification.verify import Extend

if TYPE_CHECKING:
    from training.runs import Run

EMULATED = ("fp16", "bf16")


class TorchEngine:
    """A finished run, eager, in float32 on the CPU: the first link of the chain that a certificate is about."""

    name = "torch"
    precision = "fp32"
    device = "cpu"

    def __init__(self, run: Run) -> None:
        self._branches = dict(run.branches)

    def run(self, waveform: Waveform) -> dict[str, Probabilities]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        import torch

        from export.onnx import Probabilistic

        if not self._branches:
            raise EngineError("this engine has been closed")
        with torch.inference_mode():
            sound = torch.from_numpy(waveform)
            found = {name: Probabilistic(branch)(sound) for name, branch in self._branches.items()}
        rows = {name: outputs[0].numpy() for name, outputs in found.items()}
        embedding = [outputs[1].numpy() for outputs in found.values() if len(outputs) > 1]
        return rows | dict(zip([EMBEDDING], embedding, strict=False))

    def close(self) -> None:
        """Release the branches."""
        self._branches.clear()


def extend_with(run: Path | None, backends: Sequence[str] | None, threads: int | None) -> Extend:
    """What to add to the runtimes that a bundle is compared in.

    Args:
        run: folder of the trained run, to compare with torch itself.
        backends: the runtimes that were asked for; None: all, and emulations of the precisions that a bundle has.
        threads: CPU threads of an emulation.

    Returns:
        A function that raises SerError where the run cannot be read.
    """

    def extend(bundle: Bundle, listed: Candidates) -> Candidates:
        if run is not None:
            trained = _load(run)
            version = str(package_version("torch"))
            listed.found.insert(0, Candidate("torch", "fp32", version, lambda: TorchEngine(trained)))
        if backends is None and any(candidate.backend == "onnxruntime" for candidate in listed.found):
            _add_emulations(bundle, listed, threads)
        return listed

    return extend


def _add_emulations(bundle: Bundle, listed: Candidates, threads: int | None) -> None:
    for precision in EMULATED:
        graphs = lower_graphs(bundle, precision)
        if len(graphs) < len(bundle.manifest.branches):
            continue
        if find_spec("onnx") is None:
            listed.absent[f"emulated {precision}"] = "onnx is not installed; pip install 'ser-batch[export,cpu]'"
            continue
        open_emulated = partial(_open_emulated, bundle, precision, threads)
        version = backend_version("onnxruntime")
        listed.found.append(Candidate("emulated", precision, version, open_emulated, graphs))


def _open_emulated(bundle: Bundle, precision: str, threads: int | None) -> Engine:
    # Imported here: it needs onnx, which comparing runtimes does not.
    from export.emulation import EmulatedEngine

    return EmulatedEngine(bundle, precision, threads)


def _load(folder: Path) -> Run:
    try:
        from training.runs import load_run
    except ImportError as error:
        raise SerError(
            "a comparison with torch needs what trained the model",
            got=error,
            remedy="Install it: pip install 'ser-batch[export,cpu]', or leave --run out.",
        ) from error
    return load_run(folder)
