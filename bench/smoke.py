"""`bench smoke`: a few ratios in under a minute, beside the committed ones; it informs and never fails on noise.

Ratios, not times: both sides of each are measured here and now, so another machine or a busy one changes them less.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import soundfile

from bench.backends import open_backend
from bench.bare import bare_rate
from bench.interleave import interleave
from bench.throughput import measure_pipeline
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.engines import Engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import BundleError
from ser_batch.recordings.sources import Source, find_audio

COMMITTED = Path(__file__).parent / "results" / "smoke.json"
FILES, BATCH, ROUNDS = 48, 8, 9


def smoke_ratios(
    bundle: Bundle, backends: Sequence[str], files: int = FILES, rounds: int = ROUNDS, size: str = "compact"
) -> dict[str, float]:
    """Name → ratio: each engine against the first and against torch, the pipeline against its bare engine.

    Args:
        size: of the model that torch is compared on, since no torch weights travel in a bundle (see
            `bench.peers.models`); left out where torch is not installed.
    """
    ratios: dict[str, float] = {}
    engines = {backend: open_backend(bundle, backend, batch=BATCH) for backend in backends}
    clips = synthetic_clips(bundle.manifest.clip)
    branch = bundle.manifest.branches[0].name
    try:
        for found in interleave(engines, branch, clips, BATCH, rounds=rounds)[1:]:
            ratios[f"{found.label} / {backends[0]}, clips/s at batch {BATCH}"] = found.speedup
        with tempfile.TemporaryDirectory() as folder:
            sources = synthetic_recordings(Path(folder), bundle, files)
            for backend, engine in engines.items():
                bare = bare_rate(Scorer(bundle, engine), clips, BATCH, files)
                done = measure_pipeline(bundle, engine, sources, workers=2, batch=BATCH, repeats=2, bare=bare)
                ratios[f"pipeline / bare engine, {backend}"] = done.engine_share
                ratios[f"engine's share of the pipeline's CPU time, {backend}"] = (
                    done.cpu_seconds["engine"] / done.cpu_seconds["pipeline"]
                )
    finally:
        for engine in engines.values():
            engine.close()
    return ratios | _against_torch(backends, rounds, size)


def synthetic_recordings(folder: Path, bundle: Bundle, count: int) -> list[Source]:
    """Write `count` FLAC files of the reference's synthetic sounds, each of another level."""
    rule = bundle.manifest.clip
    clips = synthetic_clips(rule)
    # A silent recording is not scored, and would make the pipeline look fast.
    heard = clips[np.abs(clips).max(axis=1) > 0.01]
    for number in range(count):
        clip = heard[number % len(heard)]
        level = 1 - number / (2 * count)
        soundfile.write(folder / f"{number:05d}.flac", clip * level, rule.sample_rate, subtype="PCM_16")
    return find_audio([folder])


def deltas(ratios: dict[str, float], before: dict[str, float] | None) -> list[tuple[str, float, float | None]]:
    """(name, ratio, relative change from the committed one; None where that is missing)."""
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
        # A model without graphs of its own for a precision cannot be run in it.
        for backend in backends:
            with suppress(BundleError):
                engines[backend] = open_backend(model.bundle, backend, batch=BATCH)
        for engine in engines.values():
            stack.callback(engine.close)
        clips = synthetic_clips(model.bundle.manifest.clip)
        found = interleave(engines, next(iter(model.branches)), clips, BATCH, rounds=rounds)[1:]
    return {f"{c.label} / torch eager fp32, {size} context branch, clips/s at batch {BATCH}": c.speedup for c in found}
