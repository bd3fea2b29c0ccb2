"""TensorRT on an NVIDIA GPU: engines that `ser-export trt` compiled into the bundle, native or for RTX.

An engine file is code. It is read from the bundle alone, its sha256 is compared with the manifest's once more, and its
sidecar must say that it was built for this bundle, this runtime and this kind of GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import deque
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Waveform
from ser_batch.engines.batching import Piece, pieces
from ser_batch.engines.compiled_branch import CompiledBranch
from ser_batch.engines.cuda_device import open_cuda_device
from ser_batch.engines.device import Device, Rows
from ser_batch.engines.gpu_slot import Slot
from ser_batch.engines.nvidia import no_gpu
from ser_batch.engines.sidecar import Here, Sidecar, misfits, read_sidecars, rebuild_command
from ser_batch.engines.tensorrt_library import LIBRARIES, load
from ser_batch.engines.tensorrt_library import version as library_version
from ser_batch.errors import BundleError, EngineError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What engines can be built in, the default first; a bundle has those it was given."""
_SLOTS = 2


def unavailable() -> str | None:
    """Why no TensorRT can run here; None if one can."""
    if not any(library.installed() for library in LIBRARIES.values()):
        remedies = ", or ".join(f"{library.title} with {library.remedy}" for library in LIBRARIES.values())
        return f"no TensorRT is installed; install {remedies}"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "cuda-bindings is not installed; install it with pip install 'ser-batch[trt]' or 'ser-batch[trt-rtx]'"
    return no_gpu()


def unsupported(precision: str) -> str | None:
    """Why this machine cannot run one of `PRECISIONS`; None: whether it can, its engine says."""
    return None


def version() -> str:
    """Names and versions of the libraries that are installed."""
    installed = [library for library in LIBRARIES.values() if library.installed()]
    return ", ".join(f"{library.name} {library_version(load(library))}" for library in installed)


def open_bundle(bundle: Bundle, threads: int | None, precision: str, batch: int = 1) -> TensorRtEngine:
    """Load the engines of `bundle` that were built for this machine.

    Raises:
        BundleError: the bundle has no engines in this precision, or none that belong to this machine.
        EngineError: there is no GPU, or an engine is refused.
    """
    device = open_cuda_device()
    try:
        return open_on(device, bundle, precision)
    except BaseException:
        device.close()
        raise


def open_on(device: Device, bundle: Bundle, precision: str) -> TensorRtEngine:
    """Load them on `device`, which the engine then owns."""
    sidecar, trt = _choose(device, bundle, precision)
    columns = (bundle.manifest.clip.samples, len(bundle.labels))
    branches = [
        CompiledBranch(trt, branch, _plan(bundle, sidecar.engine(branch.name)), sidecar.profiles, columns, device)
        for branch in bundle.manifest.branches
    ]
    return TensorRtEngine(branches, precision, columns[0], device)


class TensorRtEngine:
    """All branches of one bundle on one GPU.

    A batch is cut into pieces of the engines' batch sizes; while one is computed, the next is copied.

    Args:
        samples: of a clip.
        device: closed with the engine.
    """

    name = "trt"
    device = "cuda"

    def __init__(self, branches: Sequence[CompiledBranch], precision: str, samples: int, device: Device) -> None:
        self.precision = precision
        self._branches, self._device = list(branches), device
        self._sizes = self._branches[0].profiles
        upload_stream = device.stream()
        self._slots = [Slot(self._branches, samples, device, upload_stream) for _ in range(_SLOTS)]
        self._open = True

    @property
    def graphs(self) -> tuple[int, int]:
        """How many steps are CUDA graphs, of how many."""
        return sum(slot.graphs for slot in self._slots), _SLOTS * len(self._branches) * len(self._sizes)

    def run(self, waveform: Waveform) -> dict[str, Rows]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._open:
            raise EngineError("this engine has been closed")
        results = {b.name: np.empty((len(waveform), b.classes), np.float32) for b in self._branches}
        waiting: deque[tuple[Slot, Piece]] = deque()
        try:
            for index, piece in enumerate(pieces(len(waveform), self._sizes)):
                if len(waiting) == _SLOTS:
                    _collect(waiting, results)
                slot = self._slots[index % _SLOTS]
                slot.submit(waveform, piece)
                waiting.append((slot, piece))
            while waiting:
                _collect(waiting, results)
        except EngineError:
            self.close()
            raise
        return results

    def close(self) -> None:
        """Release engines and memory; a failure in `run` has done so."""
        if self._open:
            self._open = False
            self._slots.clear()
            for branch in self._branches:
                branch.close()
            self._device.close()


def _collect(waiting: deque[tuple[Slot, Piece]], results: dict[str, Rows]) -> None:
    slot, piece = waiting.popleft()
    slot.collect(piece, results)


def _choose(device: Device, bundle: Bundle, precision: str) -> tuple[Sidecar, ModuleType]:
    """The engines of `precision` that fit this machine, and the library that runs them."""
    built = [sidecar for sidecar in read_sidecars(bundle) if sidecar.precision == precision]
    if not built:
        raise BundleError(
            f"bundle {bundle.id} has no TensorRT engines in {precision}",
            remedy=f"Build them: {rebuild_command(bundle, precision).removesuffix(' --replace')}",
        )
    refused: list[str] = []
    for library in LIBRARIES.values():
        own = [sidecar for sidecar in built if sidecar.runtime == library.name]
        if library.installed() is None:
            refused += [f"{sidecar.built_for}: {library.title} is not installed" for sidecar in own]
            continue
        trt = load(library)
        here = Here(library.name, library_version(trt), device.name, device.compute_capability)
        for sidecar in own:
            reasons = list(misfits(sidecar, bundle, here))
            if not reasons:
                return sidecar, trt
            refused.append(f"{sidecar.built_for}: {', '.join(reasons)} (here: {here})")
    raise BundleError(
        f"no TensorRT engine of bundle {bundle.id} belongs to this machine",
        got="; ".join(refused) or f"a runtime that is not known: {built[0].built_for}",
        remedy=f"Build it here: {rebuild_command(bundle, precision, built[0])}",
    )


def _plan(bundle: Bundle, member: str) -> bytes:
    """An engine's bytes, with the manifest's sha256: the file may have changed since the bundle was opened."""
    path = bundle.path(member)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read", got=error.strerror) from error
    if (found := hashlib.sha256(plan).hexdigest()) != bundle.manifest.files[member]:
        raise EngineError(
            f"{path} was changed since the bundle was opened (sha256 differs), so it is not run",
            got=found,
            expected=bundle.manifest.files[member],
        )
    return plan
