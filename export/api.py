"""What `ser-export onnx` and `verify` do, as functions: a run to a bundle, and the proof that they are equal.

Beside the runtimes, `verify` compares the trained run in torch, and precisions emulated on a CPU.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import partial
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
from ser_batch.verification.verify import Extend, Verification
from ser_batch.verification.verify import verify as verify_bundle

if TYPE_CHECKING:
    from export.onnx import Exported
    from export.precision import Lowered
    from training.runs import Run

EMULATED = ("fp16", "bf16")


def export_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] | None = None,
    name: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    evaluations: Sequence[str | os.PathLike[str]] = (),
    robustness: str | os.PathLike[str] | None = None,
    trust: str | os.PathLike[str] | None = None,
    precisions: Sequence[str] = (),
    calibration: str | os.PathLike[str] | None = None,
    progress: Callable[[Exported | Lowered], None] | None = None,
) -> Bundle:
    """Export a finished run to a bundle of ONNX graphs, each compared with its branch in torch.

    Args:
        run: folder of the run, or of the heads of one.
        out: folder of the bundle, which appears whole.
        backbone: folder or hub name of the encoder of heads; None: the hub's that they were trained on.
        name: of the bundle; None: the run's recipe.
        licence: of the weights; None: what the run's corpus asks, where that is known.
        overwrite: replace an existing bundle.
        evaluations: what `ser-batch evaluate --json` wrote of other speech, for the model card.
        robustness: what `ser-train robustness --out` wrote of an earlier export, for the model card.
        trust: JSON file of what is known of unseen corpora, for the manifest: docs/bundle-format.md; None: what
            `ser-train loco` left in the run's folder.
        precisions: "fp16", "bf16", "int8": graphs to add to those in fp32.
        calibration: folder or glob of recorded speech, for int8.
        progress: called after each graph.

    Raises:
        SerError: torch is missing, the run is not finished, a graph is not equal to its branch, `out` exists.
    """
    need_torch()
    from export.assemble import assemble
    from export.precision import check_request, quantize
    from ser_batch.verification.speech import find_speech
    from training.runs import load_run

    speech = None if calibration is None else Path(calibration)
    check_request(precisions, speech)
    if speech is not None:
        find_speech(speech)  # if there is none, the bundle should not be made first
    bundle = assemble(
        load_run(Path(run), None if backbone is None else os.fspath(backbone)),
        Path(out),
        name=name,
        licence=licence,
        overwrite=overwrite,
        evaluations=[Path(each) for each in evaluations],
        robustness=None if robustness is None else Path(robustness),
        trust=None if trust is None else Path(trust),
        progress=progress,
    ).bundle
    if precisions:
        return quantize(bundle, precisions, calibration=speech, progress=progress)
    return bundle


def verify(
    bundle: str | os.PathLike[str] | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | None = None,
    backends: Sequence[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    labels: str = "ravdess",
    threads: int | None = None,
) -> Verification:
    """Compare a bundle in every runtime and precision here with what was trained, and write what was found.

    Args:
        bundle: folder; None: the embedded default bundle.
        run: folder of the trained run, to compare with torch itself, too.
        backbone: folder or hub name of its encoder, where `run` names heads.
        backends: runtimes to compare; None: all that are installed.
        audio, labels: labelled recordings to compare on, too: a folder, and a corpus or a table path,label.
        threads: CPU threads of a runtime; None: its own choice.

    Returns:
        `.passed`, and `.failures`: each reason why it did not; `.certificates` are the files written.

    Raises:
        SerError: the bundle, the run or the speech cannot be read.
    """
    asked = None if backends is None else list(backends)
    encoder = None if backbone is None else os.fspath(backbone)
    return verify_bundle(
        None if bundle is None else Path(bundle),
        backends=asked,
        threads=threads,
        audio=None if audio is None else Path(audio),
        labels=labels,
        extend=extend_with(None if run is None else Path(run), asked, threads, encoder),
    )


def need_torch() -> None:
    """SerError unless the packages that an export needs are installed."""
    needed = ("torch", "transformers", "onnx", "onnxscript")
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise SerError(
            "an export needs what trained the model",
            got=f"no {', '.join(missing)}",
            remedy="Install it: pip install 'ser-batch[export,cpu]'.",
        )


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


def extend_with(
    run: Path | None, backends: Sequence[str] | None, threads: int | None, backbone: str | None = None
) -> Extend:
    """What to add to the runtimes that a bundle is compared in.

    Args:
        run: folder of the trained run, to compare with torch itself.
        backends: the runtimes that were asked for; None: all, and emulations of the precisions that a bundle has.
        threads: CPU threads of an emulation.
        backbone: folder or hub name of the run's encoder, of a run that does not hold it.

    Returns:
        A function that raises SerError where the run cannot be read.
    """

    def extend(bundle: Bundle, listed: Candidates) -> Candidates:
        if run is not None:
            trained = _load(run, backbone)
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
        if importlib.util.find_spec("onnx") is None:
            listed.absent[f"emulated {precision}"] = "onnx is not installed; pip install 'ser-batch[export,cpu]'"
            continue
        open_emulated = partial(_open_emulated, bundle, precision, threads)
        version = backend_version("onnxruntime")
        listed.found.append(Candidate("emulated", precision, version, open_emulated, graphs))


def _open_emulated(bundle: Bundle, precision: str, threads: int | None) -> Engine:
    # Imported here: it needs onnx, which comparing runtimes does not.
    from export.emulation import EmulatedEngine

    return EmulatedEngine(bundle, precision, threads)


def _load(folder: Path, backbone: str | None) -> Run:
    try:
        from training.runs import load_run
    except ImportError as error:
        raise SerError(
            "a comparison with torch needs what trained the model",
            got=error,
            remedy="Install it: pip install 'ser-batch[export,cpu]', or leave --run out.",
        ) from error
    return load_run(folder, backbone)
