"""The latency sweep of one GPU (or, to rehearse it, a CPU) from a fresh checkout; see gpu_sweep.sh.

torch bf16 eager and compiled, ONNX Runtime, then TensorRT (native, or for RTX where its build takes this GPU: it does
not take an H200), wav2vec 2.0 base with random weights from a seed, batch 1 … 512;
the machine's matmul peak first, files through the pipeline last. After every measurement the results so far are
written, so that a sweep cut short keeps what it had; what did not fit in time is named, not dropped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import describe
from bench.latency import Budget, Measurement, Plan, flops_by_target, measure_engine, with_share
from bench.peak import Peak, measure_peaks
from bench.results import document, write
from bench.tables import markdown, tables
from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import Engine
from ser_batch.engines.onnxruntime_cuda import BoundEngine
from ser_batch.errors import SerError

BATCHES = (1, 8, 64, 128, 256, 512, 2, 4, 16, 32)
"""In the order of their worth, should time run out."""
SMALL_BATCHES = (1, 2)
BUDGET = Budget(warmup=3, iterations=50, seconds=2.0)
SMALL_BUDGET = Budget(warmup=1, iterations=3, seconds=0.5, least=2)
SECONDS = 420.0
"""After which no further measurement starts: 8 minutes less what a start and the last one take."""
FILES = 2048


@dataclass
class Sweep:
    """What has been found so far."""

    environment: dict[str, Any]
    peaks: list[Peak] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    throughput: list[Any] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The sweep as a result, batch sizes in order."""
        ordered = sorted(self.measurements, key=lambda m: (m.backend, m.precision, m.target, m.batch))
        found = {"peaks": self.peaks, "throughput": self.throughput, "absent": self.absent}
        return document("gpu_sweep", self.environment, measurements=ordered, **found)


def sweep(out: Path, device: str, small: bool, seconds: float = SECONDS) -> dict[str, Any]:
    """Run it all, writing `out`/gpu_sweep.json as it goes; returns the result.

    Raises:
        SerError: the machine lacks the device, or nothing could be measured.
    """
    from bench.peers.models import random_model
    from bench.peers.tensorrt_here import build_here
    from bench.peers.torch_engine import TorchEngine, check_device

    deadline = time.monotonic() + seconds
    check_device(device)
    found = Sweep(describe())
    found.peaks = measure_peaks(device, small)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "bundle", "small" if small else "base", only_context=True)
        makers: dict[str, Callable[[], Engine]] = {
            "torch eager bf16": partial(TorchEngine, model.branches, device=device, precision="bf16"),
            "ONNX Runtime": partial(BoundEngine, model.bundle, device, tf32=True),
            "torch compile bf16": partial(TorchEngine, model.branches, device=device, precision="bf16", compiled=True),
            "torch eager fp32": partial(TorchEngine, model.branches, device=device),
            "TensorRT fp32": partial(build_here, model.bundle),
        }
        plan = _plan(model.bundle, small)
        for label, make in makers.items():
            for measurement in _measure(label, make, plan, found, deadline):
                found.measurements.append(measurement)
                write(found.document(), out / "gpu_sweep.json")
            if label == "torch eager bf16" or label == "ONNX Runtime":
                _through_files(label, make, model.bundle, small, found, deadline)
                write(found.document(), out / "gpu_sweep.json")
    # Once more: what failed last, and so made no measurement, is a finding too.
    write(found.document(), out / "gpu_sweep.json")
    if not found.measurements:
        raise SerError("nothing could be measured", got=found.absent)
    return found.document()


def _plan(bundle: Bundle, small: bool) -> Plan:
    rng = np.random.default_rng(0)
    batches = SMALL_BATCHES if small else BATCHES
    # Noise: what the clips hold changes no cost, and the sweep needs no audio files.
    clips = rng.uniform(-0.5, 0.5, (max(batches), bundle.manifest.clip.samples)).astype(np.float32)
    target = bundle.manifest.branches[0].name
    return Plan(bundle, (), (target,), batches, clips, [], budget=SMALL_BUDGET if small else BUDGET)


def _measure(
    label: str, make: Callable[[], Engine], plan: Plan, found: Sweep, deadline: float
) -> Iterator[Measurement]:
    """Every batch size of one engine; one that fails or finds no time is noted, and the others go on."""
    (target,) = plan.targets
    flops = flops_by_target(plan.bundle).get(target)
    engine: Engine | None = None
    try:
        engine = make()
        for batch in plan.batch_sizes:
            if time.monotonic() > deadline:
                found.absent[f"{label}, batch {batch}"] = "no time left"
                continue
            try:
                yield with_share(measure_engine(engine, plan, target, batch), flops, found.peaks)
            except SerError as error:
                found.absent[f"{label}, batch {batch}"] = str(error)
    except SerError as error:
        found.absent[label] = str(error)
    finally:
        if engine is not None:
            engine.close()


def _through_files(
    label: str, make: Callable[[], Engine], bundle: Any, small: bool, found: Sweep, deadline: float
) -> None:
    """The pipeline around the engine, from FLAC files on disk to Parquet."""
    from bench.bare import bare_rate
    from bench.smoke import synthetic_recordings
    from bench.throughput import measure_pipeline
    from ser_batch.bundle.reference import synthetic_clips
    from ser_batch.engines.scorer import Scorer
    from ser_batch.run.pipeline import default_workers

    if time.monotonic() > deadline:
        found.absent[f"{label}, from files"] = "no time left"
        return
    files, batch = (8, 2) if small else (FILES, 64)
    try:
        with tempfile.TemporaryDirectory() as folder:
            sources = synthetic_recordings(Path(folder), bundle, files)
            engine = make()
            try:
                bare = bare_rate(Scorer(bundle, engine), synthetic_clips(bundle.manifest.clip), batch, files)
                done = measure_pipeline(
                    bundle, engine, sources, workers=default_workers(), batch=batch, repeats=2, bare=bare
                )
            finally:
                engine.close()
        found.throughput.append(done)
    except SerError as error:
        found.absent[f"{label}, from files"] = str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, sweep, print the tables last."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for gpu_sweep.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a toy model and two batch sizes: rehearses, says nothing")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nothing further starts")
    given = parser.parse_args(arguments)
    try:
        result = sweep(given.out, given.device, given.small, given.seconds)
    except SerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for what, reason in result["absent"].items():
        sys.stdout.write(f"left out: {what}: {reason}\n")
    for table in reversed(tables(result)):
        sys.stdout.write(f"\n{table.title}\n\n{markdown(table)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
