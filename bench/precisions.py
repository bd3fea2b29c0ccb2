"""`bench precisions`: a bundle's runtimes and precisions on the same batches, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from bench.archive import read_clips
from bench.backends import branch_view, open_backend
from bench.latency import flops_by_target
from bench.peak import measure_peaks
from bench.timing import Candidate, interleave
from ser_batch.bundle.bundle import Bundle
from ser_batch.recordings.recording import Recording

ROUNDS = 20
"""Turns of each engine."""


def measure_precisions(
    bundle: Bundle,
    backends: Sequence[str],
    recordings: Sequence[Recording],
    batch_sizes: Sequence[int],
    *,
    target: str | None = None,
    rounds: int = ROUNDS,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time a branch in every backend, which take turns; speed and probabilities are told against the first.

    Args:
        backends: each "name:precision".
        recordings: none means the bundle's reference clips.
        target: the branch; None: the first, which is the context branch.

    Returns:
        The content of a result: candidates, peaks, flops_per_clip (None where it cannot be counted), model, target,
        clips.

    Raises:
        SerError: the bundle has no such branch or no graph in a precision, or every recording cannot be used.
    """
    target = target or bundle.manifest.branches[0].name
    alone, rule = branch_view(bundle, target), bundle.manifest.clip
    limit = max(batch_sizes)
    clips = read_clips(recordings, rule, limit=limit)[0] if recordings else bundle.reference().waveform
    found: list[Candidate] = []
    for batch in batch_sizes:
        with ExitStack() as stack:
            engines = {}
            for backend in backends:
                engine = engines[backend.replace(":", " ")] = open_backend(alone, backend, threads, batch)
                stack.callback(engine.close)
            found += interleave(engines, target, clips, batch, rounds=rounds)
    facts = {"model": bundle.id, "target": target, "clips": "AUDIO" if recordings else "reference"}
    measured = {"candidates": found, "peaks": measure_peaks(), "flops_per_clip": flops_by_target(alone).get(target)}
    return {**facts, **measured}
