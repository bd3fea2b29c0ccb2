"""`bench peers`: torch, transformers' pipeline, optimum's graph and every backend on the same weights and clips."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.archive import read_clips
from bench.backends import branch_view, open_backend
from bench.latency import flops_by_target
from bench.peak import check_device, measure_peaks
from bench.peers.models import Graph, Model, context_model, describe_graph
from bench.peers.torch_engine import TorchEngine
from bench.peers.transformers_engine import (
    HOW,
    OptimumEngine,
    OptimumGraph,
    TransformersEngine,
    check_python,
    export_by_optimum,
)
from bench.timing import Candidate, interleave, take
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import Waveform
from ser_batch.engines import Engine
from ser_batch.errors import SerError
from ser_batch.recordings.recording import Recording

TORCH = ("eager fp32", "eager bf16", "compile fp32", "compile bf16")
REFERENCE = "torch eager fp32"
TRANSFORMERS = "transformers pipeline fp32"
OPTIMUM = "optimum onnxruntime fp32"


def measure_peers(
    backends: tuple[str, ...],
    recordings: Sequence[Recording],
    batch_sizes: tuple[int, ...],
    *,
    size: str = "base",
    seed: int = 0,
    run_folder: Path | None = None,
    device: str = "cpu",
    optimum: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Make the model of `context_model`, compare it on the clips of `recordings`, and measure the machine's peak.

    Args:
        recordings: none means synthetic clips.
        optimum: the Python of an environment that has optimum; None leaves optimum out.
        options: of `compare_peers`.

    Returns:
        The content of a result: candidates, graphs, peaks, flops_per_clip (None where it cannot be counted), absent,
        model, target, clips.

    Raises:
        SerError: as `compare_peers`; or the device, optimum or every recording cannot be used.
    """
    check_device(device)
    if optimum:
        check_python(optimum)
    with tempfile.TemporaryDirectory() as folder:
        model = context_model(Path(folder) / "bundle", size, seed, run_folder)
        rule = model.bundle.manifest.clip
        clips = read_clips(recordings, rule, limit=max(batch_sizes))[0] if recordings else synthetic_clips(rule)
        context = next(iter(model.branches.values()))
        theirs = export_by_optimum(optimum, context, Path(folder) / "optimum") if optimum else None
        found, absent = compare_peers(model, backends, clips, batch_sizes, device=device, optimum=theirs, **options)
        target = found[0].target
        graphs = exported_graphs(model, target, theirs)
        flops = flops_by_target(branch_view(model.bundle, target)).get(target)
    facts = {"model": model.bundle.id, "target": target, "clips": "AUDIO" if recordings else "synthetic"}
    measured = {"candidates": found, "graphs": graphs, "peaks": measure_peaks(device), "flops_per_clip": flops}
    return {**facts, **measured, "absent": absent}


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
    optimum: OptimumGraph | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """Candidates at each batch size, and why others are missing.

    Args:
        target: the branch compared; None: the first, which is the context branch.
        optimum: optimum's export of that branch; None leaves optimum out.

    Raises:
        SerError: the reference cannot run, or a candidate computes something else.
    """
    target = target or next(iter(model.branches))
    branch_view(model.bundle, target)
    absent = {OPTIMUM: HOW} if optimum is None else {}
    found: list[Candidate] = []
    for batch in batch_sizes:
        with ExitStack() as stack:
            makers = engine_makers(model, backends, target, device=device, threads=threads, batch=batch)
            if optimum is not None:
                makers[OPTIMUM] = partial(_optimum, model, target, optimum, threads)
            engines, missing = open_engines(makers, take(clips, batch, 0), stack)
            absent |= missing
            found += interleave(engines, target, clips, batch, rounds=rounds)
    return found, absent


def exported_graphs(model: Model, target: str, optimum: OptimumGraph | None = None) -> list[Graph]:
    """Facts of the graphs that are compared: this project's, then optimum's."""
    (branch,) = branch_view(model.bundle, target).manifest.branches
    packages = {name: version(name) for name in ("ser-batch", "transformers", "torch")}
    own = describe_graph(model.bundle.graph(branch, "fp32"), packages, "48 kHz, in [-1, 1]")
    return [own] if optimum is None else [own, optimum.facts]


def open_engines(
    makers: Mapping[str, Callable[[], Engine]], waveform: Waveform, stack: ExitStack
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that can be opened and run, which `stack` will close, and why others cannot."""
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
) -> dict[str, Callable[[], Engine]]:
    """Label → function that opens an engine for the branch `target`; the reference comes first.

    Args:
        torch: "KIND PRECISION" of the torch engines, out of `TORCH`.
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
    clip = model.bundle.manifest.clip
    return TransformersEngine(target, model.branches[target], sample_rate=clip.sample_rate, device=device)


def _optimum(model: Model, target: str, graph: OptimumGraph, threads: int | None) -> Engine:
    clip = model.bundle.manifest.clip
    return OptimumEngine(target, graph, model.branches[target], sample_rate=clip.sample_rate, threads=threads)
