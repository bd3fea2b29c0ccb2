"""`bench smoke`: a few ratios in under a minute, beside the committed ones; it informs and never fails on noise.

Both sides of each ratio are measured here and now, so another machine or a busy one changes it less than a time.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.archive import synthetic_recordings
from bench.backends import open_backend
from bench.throughput import measure_engine_alone, measure_pipeline
from bench.timing import interleave
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.engines import Engine
from ser_batch.errors import BundleError

COMMITTED = Path(__file__).parent / "results" / "smoke.json"
FILES, BATCH, ROUNDS = 48, 8, 9


def smoke_ratios(
    bundle: Bundle, backends: Sequence[str], files: int = FILES, rounds: int = ROUNDS, size: str = "compact"
) -> dict[str, float]:
    """Name → ratio: each engine against the first and against torch, the pipeline against its engine alone.

    Args:
        size: of the model that torch is compared on (see `bench.peers.models`), since a bundle has no torch weights;
            the comparison is left out where torch is not installed.
    """
    ratios: dict[str, float] = {}
    engines = {backend: open_backend(bundle, backend, batch=BATCH) for backend in backends}
    clips = synthetic_clips(bundle.manifest.clip)
    branch = bundle.manifest.branches[0].name
    try:
        for found in interleave(engines, branch, clips, BATCH, rounds=rounds)[1:]:
            ratios[f"{found.label} / {backends[0]}, clips/s at batch {BATCH}"] = found.speedup
        with tempfile.TemporaryDirectory() as folder:
            recordings = synthetic_recordings(Path(folder), bundle.manifest.clip, files)
            for backend, engine in engines.items():
                alone = measure_engine_alone(bundle, engine, clips, BATCH, files)
                done = measure_pipeline(bundle, engine, recordings, alone, workers=2, batch=BATCH, repeats=2)
                ratios[f"pipeline / bare engine, {backend}"] = done.engine_share
                ratios[f"engine's share of the pipeline's CPU time, {backend}"] = (
                    done.cpu_seconds["engine"] / done.cpu_seconds["pipeline"]
                )
    finally:
        for engine in engines.values():
            engine.close()
    return ratios | _against_torch(backends, rounds, size)


def deltas(ratios: dict[str, float], before: dict[str, float] | None) -> list[tuple[str, float, float | None]]:
    """(name, ratio, its relative change from the one `before`; None where there is none)."""
    old = before or {}
    return [(name, ratio, ratio / old[name] - 1 if old.get(name) else None) for name, ratio in ratios.items()]


def _against_torch(backends: Sequence[str], rounds: int, size: str) -> dict[str, float]:
    """The context branch of a model with random weights: each engine against torch eager in float32, in turns."""
    if importlib.util.find_spec("torch") is None:
        return {}
    from bench.peers.models import random_model
    from bench.peers.torch_engine import TorchEngine

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = random_model(Path(folder) / "bundle", size, only_context=True)
        engines: dict[str, Engine] = {"torch": TorchEngine(model.branches)}
        # A model without graphs for a precision cannot be run in it.
        for backend in backends:
            with suppress(BundleError):
                engines[backend] = open_backend(model.bundle, backend, batch=BATCH)
        for engine in engines.values():
            stack.callback(engine.close)
        clips = synthetic_clips(model.bundle.manifest.clip)
        found = interleave(engines, next(iter(model.branches)), clips, BATCH, rounds=rounds)[1:]
    return {f"{c.label} / torch eager fp32, {size} context branch, clips/s at batch {BATCH}": c.speedup for c in found}
