"""A report of `verify`, with each runtime's speed here, as the certificate by which `--backend auto` chooses."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from export.parity import Comparison, Report, label_failures
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import BACKENDS, available_backends, backend_version, open_engine
from ser_batch.engines.certificate import Entry, add_entries, machine_id
from ser_batch.engines.protocol import Engine

BASELINE = ("onnxruntime", "fp32")
"""The backend and precision to which speeds are relative."""
_BATCH = 8
_ROUNDS = 3
Variant = tuple[str, str]
"""Backend and precision."""


def certify(bundle: Bundle, report: Report, threads: int | None = None) -> Path:
    """Measure the speed of everything in `report`, and write it all to this machine's certificate of `bundle`.

    Raises:
        EngineError: a runtime that ran in `report` no longer does.
        InputError, OutputError: the certificate cannot be read or written.
    """
    labels_are_sound = not list(label_failures(bundle))
    found: dict[Variant, list[Comparison]] = {}
    for comparison in report.comparisons:
        if comparison.engine not in BACKENDS:
            continue  # torch and emulations are evidence, and nothing to choose
        found.setdefault((comparison.engine, comparison.precision), []).append(comparison)
    speeds = relative_speeds(bundle, list(found), threads)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entries = []
    for variant, comparisons in found.items():
        differences = [c.max_difference for c in comparisons if c.max_difference is not None]
        entry = Entry(
            backend=variant[0],
            precision=variant[1],
            device=comparisons[0].device,
            version=backend_version(variant[0]),
            machine=machine_id(),
            created=now,
            passed=labels_are_sound and not any(reason for c in comparisons for reason in c.failures()),
            max_difference=max(differences, default=None),
            flips=sum(c.flips for c in comparisons),
            rows=sum(c.rows for c in comparisons),
            speed=speeds.get(variant),
        )
        entries.append(entry)
    return add_entries(bundle, entries)


def relative_speeds(bundle: Bundle, variants: list[Variant], threads: int | None = None) -> dict[Variant, float]:
    """Clips/s of each variant relative to `BASELINE`; empty where that is not installed.

    The variants take turns, so that whatever else the machine does meets all of them, and each one's best turn
    counts. Enough to rank them; `bench` measures.

    Raises:
        EngineError: a variant cannot be opened or run.
    """
    if available_backends().get(BASELINE[0], "") is not None:
        return {}
    clips = bundle.reference().waveform
    batch = np.ascontiguousarray(np.resize(clips, (_BATCH, clips.shape[1])))
    engines: dict[Variant, Engine] = {}
    try:
        for backend, precision in dict.fromkeys([BASELINE, *variants]):
            engines[backend, precision] = open_engine(bundle, backend, threads, precision, _BATCH)
            engines[backend, precision].run(batch)
        rounds = [{variant: _seconds(engine, batch) for variant, engine in engines.items()} for _ in range(_ROUNDS)]
    finally:
        for engine in engines.values():
            engine.close()
    best = {variant: min(turn[variant] for turn in rounds) for variant in engines}
    return {variant: best[BASELINE] / seconds for variant, seconds in best.items()}


def _seconds(engine: Engine, batch: np.ndarray) -> float:
    began = time.perf_counter()
    engine.run(batch)
    return time.perf_counter() - began
