"""The latency sweep of one GPU (or, to rehearse it, a CPU) from a fresh checkout; see gpu_sweep.sh.

It measures the machine's matmul peak first, then torch bf16 eager and compiled, ONNX Runtime and TensorRT (native, or
for RTX where that builds for this GPU: it does not for an H200), on wav2vec 2.0 base with random weights from a seed,
batch 1 … 512, and files through the pipeline. The results so far are written after every measurement, so that a sweep
that is cut short keeps them; measurements that did not fit in time are named as absent.
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
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.archive import synthetic_recordings
from bench.environment import clocks_line, describe, machine_line
from bench.latency import Budget, Measurement, Plan, flops_by_target, measure_engine, with_share
from bench.peak import Peak, check_device, measure_peaks
from bench.results import document, write
from bench.tables import markdown, tables
from bench.throughput import Throughput, measure_engine_alone, measure_pipeline
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.engines import Engine, open_engine
from ser_batch.engines.cuda import open_cuda_device
from ser_batch.engines.onnxruntime_cuda import BoundEngine
from ser_batch.errors import SerError

if TYPE_CHECKING:
    from bench.peers.models import Model

BATCHES = (1, 8, 64, 128, 256, 512, 2, 4, 16, 32)
"""The most informative first, should time run out."""
SMALL_BATCHES = (1, 2)
BUDGET = Budget(warmup=3, iterations=50, seconds=2.0)
SMALL_BUDGET = Budget(warmup=1, iterations=3, seconds=0.5, least=2)
SECONDS = 420.0
"""After which no further measurement starts: 8 minutes, less the start and the last measurement."""
FILES = 2048
FROM_FILES = ("torch eager bf16", "ONNX Runtime")
"""Engines that also score files through the pipeline."""
PROFILES = (1, 8, 64)
"""Batch sizes of the TensorRT engines, which cut larger batches."""


@dataclass
class Sweep:
    """The measurements so far."""

    environment: dict[str, Any]
    peaks: list[Peak] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The sweep as a result, batch sizes in ascending order."""
        ordered = sorted(self.measurements, key=lambda m: (m.backend, m.precision, m.target, m.batch))
        found = {"peaks": self.peaks, "throughput": self.throughput, "absent": self.absent}
        return document("gpu_sweep", self.environment, measurements=ordered, **found)


def sweep(out: Path, device: str, small: bool, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure every engine, writing `out`/gpu_sweep.json after each measurement; returns the result.

    Raises:
        SerError: the machine lacks the device, or nothing could be measured.
    """
    from bench.peers.models import random_model

    deadline = time.monotonic() + seconds
    check_device(device)
    found = Sweep(describe())
    found.peaks = measure_peaks(device, small)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "bundle", "small" if small else "base", only_context=True)
        plan = _plan(model.bundle, small)
        for label, make in _makers(model, device).items():
            for measurement in _measure(label, make, plan, found, deadline):
                found.measurements.append(measurement)
                write(found.document(), out / "gpu_sweep.json")
            if label in FROM_FILES:
                _through_files(label, make, model.bundle, small, found, deadline)
            # Engines that failed are named in the result, too.
            write(found.document(), out / "gpu_sweep.json")
    if not found.measurements:
        raise SerError("nothing could be measured", got=found.absent)
    return found.document()


def _makers(model: Model, device: str) -> dict[str, Callable[[], Engine]]:
    from bench.peers.torch_engine import TorchEngine

    return {
        "torch eager bf16": partial(TorchEngine, model.branches, device=device, precision="bf16"),
        "ONNX Runtime": partial(BoundEngine, model.bundle, device, tf32=True),
        "torch compile bf16": partial(TorchEngine, model.branches, device=device, precision="bf16", compiled=True),
        "torch eager fp32": partial(TorchEngine, model.branches, device=device),
        "TensorRT fp32": partial(open_tensorrt, model.bundle),
    }


def open_tensorrt(bundle: Bundle) -> Engine:
    """Build TensorRT engines in fp32 for the first GPU, add them to `bundle` and open them.

    Native TensorRT comes first, then the one for RTX.

    Raises:
        SerError: there is no GPU or no library, or the library does not build for this GPU, as RTX's for an H200.
    """
    from export.tensorrt import build_engines, choose_library

    device = open_cuda_device()
    capability = device.compute_capability
    device.close()
    gpus = [capability] if choose_library("auto").ahead_of_time else []
    built = build_engines(bundle, precision="fp32", batches=PROFILES, gpus=gpus, replace=True)
    return open_engine(built.bundle, "trt", precision="fp32")


def _plan(bundle: Bundle, small: bool) -> Plan:
    rng = np.random.default_rng(0)
    batches = SMALL_BATCHES if small else BATCHES
    # Noise costs as much as speech, and the sweep then needs no audio files.
    clips = rng.uniform(-0.5, 0.5, (max(batches), bundle.manifest.clip.samples)).astype(np.float32)
    target = bundle.manifest.branches[0].name
    return Plan(bundle, (), (target,), batches, clips, [], budget=SMALL_BUDGET if small else BUDGET)


def _measure(
    label: str, make: Callable[[], Engine], plan: Plan, found: Sweep, deadline: float
) -> Iterator[Measurement]:
    """Every batch size of one engine; one that fails or finds no time is named as absent, and the others go on."""
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
    label: str, make: Callable[[], Engine], bundle: Bundle, small: bool, found: Sweep, deadline: float
) -> None:
    """The pipeline around the engine, from FLAC files on disk to Parquet."""
    if time.monotonic() > deadline:
        found.absent[f"{label}, from files"] = "no time left"
        return
    files, batch = (8, 2) if small else (FILES, 64)
    try:
        with tempfile.TemporaryDirectory() as folder:
            recordings = synthetic_recordings(Path(folder), bundle.manifest.clip, files)
            engine = make()
            try:
                alone = measure_engine_alone(bundle, engine, synthetic_clips(bundle.manifest.clip), batch, files)
                done = measure_pipeline(bundle, engine, recordings, alone, workers=None, batch=batch, repeats=2)
            finally:
                engine.close()
        found.throughput.append(done)
    except SerError as error:
        found.absent[f"{label}, from files"] = str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the sweep and print its tables last."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="folder for gpu_sweep.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a toy model and two batch sizes, to rehearse")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which no further measurement starts")
    given = parser.parse_args(arguments)
    try:
        result = sweep(given.out, given.device, given.small, given.seconds)
    except SerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    facts = [machine_line(result["environment"]), clocks_line(result["environment"])]
    sys.stdout.write(f"measured on {'; '.join(filter(None, facts))}\n")
    if given.small:
        sys.stdout.write("a rehearsal: a toy model and a product too small to show a peak; its figures mean nothing\n")
    for what, reason in result["absent"].items():
        sys.stdout.write(f"left out: {what}: {reason}\n")
    for table in reversed(tables(result)):
        sys.stdout.write(f"\n{table.title}\n\n{markdown(table)}\n")
    return 0


if __name__ == "__main__":
    sys.argv[0] = "gpu_sweep.sh"
    sys.exit(main())
