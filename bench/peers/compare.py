"""`bench peers`: torch eager, torch.compile, transformers' pipeline and every backend, same weights, same clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from bench.backends import open_backend
from bench.interleave import Candidate, interleave
from bench.peers.models import Model
from bench.peers.torch_engine import TorchEngine
from bench.targets import branch_view, take
from ser_batch.clip import Waveform
from ser_batch.engines import Engine
from ser_batch.errors import SerError

TORCH = ("eager fp32", "eager bf16", "compile fp32", "compile bf16")
REFERENCE = "torch eager fp32"
TRANSFORMERS = "transformers pipeline fp32"
OPTIMUM = "optimum ONNX export"
OPTIMUM_REASON = (
    "not compared: optimum-onnx 0.1.0, the latest, needs transformers < 4.58, and this project's is newer; "
    "its graph would be run by the same ONNX Runtime"
)


def compare_peers(
    model: Model,
    backends: tuple[str, ...],
    clips: Waveform,
    batch_sizes: tuple[int, ...],
    *,
    device: str = "cpu",
    rounds: int = 20,
    threads: int | None = None,
    target: str | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """Candidates at each batch size, and why others are missing.

    Args:
        target: the branch compared; None: the first, which is the context branch.

    Raises:
        SerError: the reference cannot run, or a candidate computes something else.
    """
    target = target or next(iter(model.branches))
    branch_view(model.bundle, target)
    absent = {OPTIMUM: OPTIMUM_REASON}
    found: list[Candidate] = []
    for batch in batch_sizes:
        with ExitStack() as stack:
            makers = engine_makers(model, backends, target, device=device, threads=threads, batch=batch)
            engines, missing = open_engines(makers, take(clips, batch, 0), stack)
            absent |= missing
            found += interleave(engines, target, clips, batch, rounds=rounds)
    return found, absent


def open_engines(
    makers: Mapping[str, Callable[[], Engine]], waveform: Waveform, stack: ExitStack
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that can be made and run, to be closed by `stack`, and why others cannot."""
    engines: dict[str, Engine] = {}
    missing = {}
    for label, make in makers.items():
        try:
            engine = make()
            stack.callback(engine.close)
            engine.run(waveform)
        except SerError as error:
            if label == REFERENCE:
                raise
            missing[label] = str(error)
            continue
        engines[label.replace(":", " ")] = engine
    return engines, missing


def engine_makers(
    model: Model,
    backends: tuple[str, ...],
    target: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch: int = 1,
    torch: Sequence[str] = TORCH,
) -> Mapping[str, Callable[[], Engine]]:
    """What opens each engine that runs the branch `target`, the reference first.

    Args:
        torch: "KIND PRECISION" of torch's own, of `TORCH`.
    """
    branches = {target: model.branches[target]}
    makers: dict[str, Callable[[], Engine]] = {}
    for kind, precision in map(str.split, torch):
        makers[f"torch {kind} {precision}"] = partial(
            TorchEngine, branches, device=device, precision=precision, compiled=kind == "compile", threads=threads
        )
    makers[TRANSFORMERS] = partial(_transformers, model, target, device)
    for backend in backends:
        makers[backend] = partial(open_backend, branch_view(model.bundle, target), backend, threads, batch)
    return makers


def _transformers(model: Model, target: str, device: str) -> Engine:
    from bench.peers.transformers_engine import TransformersEngine

    clip = model.bundle.manifest.clip
    return TransformersEngine(target, model.branches[target], sample_rate=clip.sample_rate, device=device)
