"""`bench smoke`: a few ratios in under a minute, beside the committed ones; it informs and never fails on noise.

Ratios, not times: both sides of each are measured here and now, so another machine or a busy one changes them less.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from bench.backends import open_backend
from bench.interleave import interleave
from bench.latency import flops_by_target
from bench.peak import best, measure_peaks
from bench.targets import FUSED
from bench.throughput import bare_rate, measure_pipeline
from ser_batch.engines.scorer import Scorer
from ser_batch.inputs.sources import Source, find_audio
from ser_batch.model.bundle import Bundle
from ser_batch.model.reference import synthetic_clips

COMMITTED = Path(__file__).parent / "results" / "smoke.json"
FILES, BATCH, ROUNDS = 48, 8, 9


def smoke_ratios(bundle: Bundle, backends: Sequence[str], files: int = FILES, rounds: int = ROUNDS) -> dict[str, float]:
    """Name → ratio: the pipeline against its bare engine, each further backend against the first, and torch.

    The torch side is its matrix product: no torch weights travel in a bundle, so an engine is judged by the share
    of torch's float32 peak that it reaches. It is left out where torch is not installed.
    """
    ratios: dict[str, float] = {}
    ceiling = _torch_ceiling(bundle)
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
                if ceiling:
                    ratios[f"{backend} / torch's fp32 product, operations a second"] = bare / ceiling
    finally:
        for engine in engines.values():
            engine.close()
    return ratios


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


def _torch_ceiling(bundle: Bundle) -> float | None:
    """Clips a second at which an engine would run at torch's float32 peak; None where either is unknown."""
    flops = flops_by_target(bundle).get(FUSED)
    if not flops or importlib.util.find_spec("torch") is None:
        return None
    peak = best([p for p in measure_peaks() if p.library == "torch"], "fp32", "cpu")
    return peak.flops / flops if peak else None
