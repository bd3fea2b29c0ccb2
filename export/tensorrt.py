"""Every branch of a bundle as TensorRT engines, added to the bundle with a sidecar that says what they are for."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

from export.tensorrt_builder import Request, Target, build_engine, parse_target
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.manifest import FP32, graph_member
from ser_batch.bundle.writing import add_artefacts, copy_bundle
from ser_batch.engines.cuda import driver_cuda, no_gpu, open_cuda_device
from ser_batch.engines.tensorrt.library import LIBRARIES, NATIVE, RTX, Library, load, version
from ser_batch.engines.tensorrt.sidecar import SIDECAR_FILE, Sidecar, bundle_at_home, engines_home
from ser_batch.errors import ExportError, OutputError
from ser_batch.files import write_atomically, writing
from ser_batch.machine import cache_folder

AUTO = "auto"
OLDEST_NATIVE = (10, 12)
"""The first that types networks strongly, has progress, and whose interface 11 still has."""

Progress = Callable[[str, str, int, int], None]
"""Called with a branch, a phase of its build, the steps that are done and how many there are."""


@dataclass(frozen=True)
class Built:
    """What was added to the bundle."""

    bundle: Bundle
    sidecar: Sidecar
    sizes: dict[str, int]
    """Branch → bytes of its engine."""
    seconds: dict[str, float]
    """Branch → duration of its build."""
    found_by_default: bool
    """Whether a run of the embedded bundle finds the engines by itself."""

    @property
    def next_step(self) -> str:
        """The command that runs the engines, and where."""
        bundle = "" if self.found_by_default else f" --bundle {self.bundle.root}"
        precision = "" if self.sidecar.precision == FP32 else f" --precision {self.sidecar.precision}"
        command = f"ser-batch run AUDIO --out preds.parquet --backend trt{precision}"
        if (reason := no_gpu()) is None:
            return f"next: {command}{bundle}"
        # The folder is a whole bundle: it can be taken to where a GPU is.
        return (
            f"next, on a machine with such a GPU (here {reason.partition(';')[0]}): "
            f"copy {self.bundle.root} there, and {command} --bundle COPY"
        )


def build_engines(
    bundle: Bundle,
    *,
    precision: str,
    batches: Sequence[int],
    runtime: str = AUTO,
    gpus: Sequence[str] = (),
    out: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Build engines of every branch of `bundle` and add them to it, or to a copy of it at `out`.

    Those of the embedded bundle go to its copy in the user's data folder, where `--backend trt` finds them.

    Args:
        precision: of the graphs; those of a lower one must be in the bundle.
        batches: batch sizes, each an optimisation profile.
        runtime: "trt", "trt-rtx", or "auto": native TensorRT where it is installed.
        gpus: generations or compute capabilities, for TensorRT for RTX; native TensorRT builds for the GPU it finds.
        replace: build engines again that are there.

    Raises:
        EngineError: the library is not installed.
        ExportError: it cannot build them, or not for these GPUs.
        BundleError: the bundle has no graphs of this precision.
        OutputError: there are such engines already, `out` exists, or the bundle cannot be written.
    """
    sizes = tuple(sorted(set(batches)))
    if not sizes or sizes[0] < 1:
        raise ExportError("an engine needs batch sizes of at least 1", got=list(batches))
    graphs = {branch.name: bundle.graph(branch, precision) for branch in bundle.manifest.branches}
    library = choose_library(runtime)
    found_by_default = out is None and bundle.is_embedded
    if out is None and (held := bundle_at_home(bundle)) is not None:
        bundle = held
    elif out is None:
        out = engines_home(bundle)
    trt = load(library)
    target, gpu = _target(library, trt, gpus)
    sidecar = _sidecar(bundle, precision, sizes, library, target, gpu)
    if not replace and sidecar.folder + SIDECAR_FILE in bundle.manifest.files:
        raise OutputError(f"bundle {bundle.id} has {sidecar.folder} already", remedy="Build it again: --replace.")
    if out is not None and os.path.lexists(out):
        raise OutputError(f"{out} exists already", remedy="Choose another --out, or delete it yourself.")
    with tempfile.TemporaryDirectory() as folder:
        paths, seconds = _build(trt, sidecar, graphs, None if gpu else target, Path(folder), progress)
        engines = {sidecar.engine(name): path for name, path in paths.items()}
        lengths = {name: path.stat().st_size for name, path in paths.items()}
        goal = bundle if out is None else copy_bundle(bundle, out)
        added = add_artefacts(goal, {sidecar.folder + SIDECAR_FILE: sidecar.to_json(), **engines}, replace=replace)
    return Built(added, sidecar, lengths, seconds, found_by_default)


def _sidecar(
    bundle: Bundle, precision: str, sizes: tuple[int, ...], library: Library, target: Target, gpu: str | None
) -> Sidecar:
    trt, files = load(library), bundle.manifest.files
    return Sidecar(
        runtime=library.name,
        runtime_version=version(trt),
        precision=precision,
        target=target.name,
        compute_capabilities=target.capabilities,
        gpu=gpu,
        cuda=_cuda_of(trt.__name__),
        driver=driver_cuda(),
        profiles=sizes,
        bundle_sha256=bundle.sha256,
        onnx_sha256={branch.name: files[graph_member(branch, precision)] for branch in bundle.manifest.branches},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def choose_library(runtime: str) -> Library:
    """The library that `runtime` names; "auto": native TensorRT where it is installed, else the one for RTX.

    Raises:
        ExportError: no such runtime, or none is installed.
    """
    if runtime != AUTO:
        if runtime not in LIBRARIES:
            raise ExportError("there is no such runtime", got=runtime, expected=", ".join([AUTO, *LIBRARIES]))
        return LIBRARIES[runtime]
    for library in LIBRARIES.values():
        if library.installed():
            return library
    reason = no_gpu()
    raise ExportError(
        "no TensorRT is installed" + (f", and {reason.partition(';')[0]}" if reason else ""),
        remedy=f"Native TensorRT builds on the GPU that it is for: {NATIVE.remedy}. TensorRT for RTX builds ahead of "
        f"time, without a GPU: {RTX.remedy}.",
    )


def _target(library: Library, trt: ModuleType, gpus: Sequence[str]) -> tuple[Target, str | None]:
    """What to build for, and the name of the GPU here if that is it."""
    if library.ahead_of_time:
        return parse_target(gpus, trt), None
    found = tuple(int(number) for number in re.findall(r"\d+", version(trt))[:2])
    if found < OLDEST_NATIVE:
        raise ExportError(
            "this TensorRT is too old", got=version(trt), expected="10.12 or later", remedy=f"{NATIVE.remedy}."
        )
    if gpus:
        raise ExportError(
            "native TensorRT builds for the GPU that is here, not for named ones",
            got=", ".join(gpus),
            remedy="Leave --gpu out, or build ahead of time with --runtime trt-rtx.",
        )
    if (reason := no_gpu()) is not None:
        raise ExportError(
            f"native TensorRT builds on the GPU it is for, and {reason}",
            remedy=f"Build ahead of time, for named GPUs: --runtime {RTX.name}.",
        )
    device = open_cuda_device()
    try:
        name, capability = device.name, device.compute_capability
    finally:
        device.close()
    return Target(f"sm{capability.replace('.', '')}", (capability,)), name


def _build(
    trt: ModuleType,
    sidecar: Sidecar,
    graphs: dict[str, Path],
    target: Target | None,
    folder: Path,
    progress: Progress | None,
) -> tuple[dict[str, Path], dict[str, float]]:
    """Each branch's engine as a file in `folder`, and the seconds it took."""
    timings = None if sidecar.runtime == RTX.name else timing_cache_path(sidecar)
    paths, seconds = {}, {}
    for name, graph in graphs.items():
        began = time.perf_counter()
        report = None if progress is None else partial(progress, name)
        request = Request(name, graph, sidecar.profiles, target)
        plan, measured = build_engine(trt, request, timing_cache=_read(timings), progress=report)
        paths[name] = folder / f"{name}.engine"
        # Written out at once: an engine is as large as its model, and the builder's copy is freed with `plan`.
        paths[name].write_bytes(memoryview(plan))
        _store(timings, measured)
        seconds[name] = time.perf_counter() - began
    return paths, seconds


def timing_cache_path(sidecar: Sidecar) -> Path:
    """Where the measurements of native TensorRT lie: in the user's cache, one file a version and kind of GPU."""
    return cache_folder() / "timing" / f"{sidecar.runtime}-{sidecar.runtime_version}-{sidecar.target}.cache"


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    return path.read_bytes() if path.is_file() else b""


def _store(path: Path | None, measured: bytes | None) -> None:
    if path is None or measured is None:
        return
    with writing(f"the timing cache {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, measured)


@cache
def _cuda_of(module: str) -> str | None:
    """The CUDA that a wheel of the library was made for, by its distribution's name: tensorrt_rtx_cu13_bindings.

    Once a process: all that is installed is read for it.
    """
    for distribution in packages_distributions().get(module, ()):
        if (found := re.search(r"[-_]cu(\d+)", distribution)) is not None:
            return found[1]
    return None
