"""TensorRT on an NVIDIA GPU: engines that `ser-export trt` compiled into the bundle, native or for RTX.

An engine file is code. It is read from the bundle alone, its sha256 is compared with the manifest's once more, and its
sidecar must say that it was built for this bundle, this runtime and this kind of GPU.

A batch of any size is cut into micro-batches, each padded to the next batch size of the engines. One upload feeds
every branch, each branch computes on a stream of its own, and its few probabilities come back on that stream. The
buffers are there twice, so that one micro-batch is copied while another is computed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import Waveform
from ser_batch.engines.cuda import Device, Handle, Rows, no_gpu, open_cuda_device
from ser_batch.engines.protocol import output_columns, wanted_outputs
from ser_batch.engines.tensorrt.branch import CompiledBranch
from ser_batch.engines.tensorrt.library import LIBRARIES, load
from ser_batch.engines.tensorrt.library import version as library_version
from ser_batch.engines.tensorrt.sidecar import Here, Sidecar, misfits, read_sidecars, rebuild_command, with_engines
from ser_batch.errors import BundleError, EngineError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What engines can be built in, the default first; a bundle has those it was given."""
_COPIES = 2
"""Buffers that take turns."""
_FLOAT = np.dtype(np.float32).itemsize


def unavailable() -> str | None:
    """Why no TensorRT can run here; None if one can."""
    if not any(library.installed() for library in LIBRARIES.values()):
        remedies = ", or ".join(f"{library.title} with {library.remedy}" for library in LIBRARIES.values())
        return f"no TensorRT is installed; install {remedies}"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "cuda-bindings is not installed; install it with pip install 'ser-batch[trt]' or 'ser-batch[trt-rtx]'"
    return no_gpu()


def unsupported(precision: str) -> str | None:
    """Why this machine cannot run one of `PRECISIONS`; None, as only its engine can say whether it can."""
    return None


def version() -> str:
    """Names and versions of the libraries that are installed."""
    installed = [library for library in LIBRARIES.values() if library.installed()]
    return ", ".join(f"{library.name} {library_version(load(library))}" for library in installed)


def open_bundle(
    bundle: Bundle, threads: int | None, precision: str, batch: int = 1, embedding: bool = False
) -> TensorRtEngine:
    """Load the engines of `bundle` that were built for this machine.

    Raises:
        BundleError: the bundle has no engines in this precision, or none that belong to this machine.
        EngineError: there is no GPU, or an engine is refused.
    """
    device = open_cuda_device()
    try:
        return open_on(device, bundle, precision, embedding)
    except BaseException:
        device.close()
        raise


def open_on(device: Device, bundle: Bundle, precision: str, embedding: bool = False) -> TensorRtEngine:
    """Load them on `device`, which the engine then owns."""
    held = with_engines(bundle)
    sidecar, trt = _choose(device, bundle, held, precision)
    samples, branches = bundle.manifest.clip.samples, []
    for branch in bundle.manifest.branches:
        columns = {branch.input: samples, **output_columns(branch, bundle)}
        plan = _plan(held, sidecar.engine(branch.name))
        branches.append(CompiledBranch(trt, branch, plan, sidecar.profiles, columns, device))
    wanted = {branch.name: wanted_outputs(bundle, branch, embedding) for branch in bundle.manifest.branches}
    return TensorRtEngine(branches, wanted, precision, samples, device)


class TensorRtEngine:
    """All branches of one bundle on one GPU.

    Args:
        wanted: for each branch, the name of a result -> the output that it is; others stay on the GPU.
        samples: of a clip.
        device: closed with the engine.
    """

    name = "trt"
    device = "cuda"

    def __init__(
        self,
        branches: Sequence[CompiledBranch],
        wanted: Mapping[str, Mapping[str, str]],
        precision: str,
        samples: int,
        device: Device,
    ) -> None:
        self.precision = precision
        self._branches, self._device = list(branches), device
        self._sizes = self._branches[0].profiles
        upload_stream = device.stream()
        self._columns = {n: b.outputs[output] for b in self._branches for n, output in wanted[b.name].items()}
        self._buffers = [Buffers(self._branches, wanted, samples, device, upload_stream) for _ in range(_COPIES)]
        self._open = True

    @property
    def graphs(self) -> tuple[int, int]:
        """How many steps are CUDA graphs, of how many."""
        return sum(each.graphs for each in self._buffers), _COPIES * len(self._branches) * len(self._sizes)

    def run(self, waveform: Waveform) -> dict[str, Rows]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1."""
        if not self._open:
            raise EngineError("this engine has been closed")
        results = {name: np.empty((len(waveform), size), np.float32) for name, size in self._columns.items()}
        waiting: deque[tuple[Buffers, MicroBatch]] = deque()
        try:
            for index, part in enumerate(micro_batches(len(waveform), self._sizes)):
                if len(waiting) == _COPIES:
                    _collect(waiting, results)
                buffers = self._buffers[index % _COPIES]
                buffers.submit(waveform, part)
                waiting.append((buffers, part))
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
            self._buffers.clear()
            for branch in self._branches:
                branch.close()
            self._device.close()


@dataclass(frozen=True)
class MicroBatch:
    """Clips start … stop of a batch, in a profile of at least as many."""

    start: int
    stop: int
    profile: int
    """Index of the batch size."""


def micro_batches(count: int, sizes: Sequence[int]) -> Iterator[MicroBatch]:
    """Cut `count` clips into batches of the largest of `sizes` (ascending), the rest into the smallest that fits it."""
    largest = len(sizes) - 1
    for start in range(0, count, sizes[largest]):
        left = count - start
        profile = next((index for index, size in enumerate(sizes) if size >= left), largest)
        yield MicroBatch(start, min(count, start + sizes[profile]), profile)


class Buffers:
    """The memory of one micro-batch on its way through the GPU, and for each branch and profile what computes from it.

    Args:
        samples: of a clip.
        upload_stream: shared by all buffers: copies queue up behind each other in any case.

    Raises:
        EngineError: the GPU has no memory left, or refuses an engine.
    """

    def __init__(
        self,
        branches: Sequence[CompiledBranch],
        wanted: Mapping[str, Mapping[str, str]],
        samples: int,
        device: Device,
        upload_stream: Handle,
    ) -> None:
        self._device, self._branches, self._upload_stream = device, branches, upload_stream
        self._sizes = branches[0].profiles
        largest = self._sizes[-1]
        self._waveform = device.page_locked((largest, samples))
        self._on_device = device.allocate(largest * samples * _FLOAT)
        self._uploaded = device.event()
        self._done = {branch.name: device.event() for branch in branches}
        self._rows = {
            branch.name: {
                name: device.page_locked((largest, branch.outputs[output]))
                for name, output in wanted[branch.name].items()
            }
            for branch in branches
        }
        self._wanted = wanted
        self.graphs = 0
        """How many of its steps are CUDA graphs; the others are put on their stream call by call."""
        self._steps = {branch.name: self._prepare(branch) for branch in branches}

    def submit(self, waveform: Waveform, part: MicroBatch) -> None:
        """Start a part of `waveform`; what was started before must have been collected."""
        size, clips = self._sizes[part.profile], part.stop - part.start
        device, staged = self._device, self._waveform[:size]
        staged[:clips] = waveform[part.start : part.stop]
        # Silence, not what the last micro-batch left there, so that the padding always computes the same.
        staged[clips:] = 0
        device.upload(staged, self._on_device, self._upload_stream)
        device.record(self._uploaded, self._upload_stream)
        for branch in self._branches:
            device.wait(branch.stream, self._uploaded)
            self._steps[branch.name][part.profile]()
            device.record(self._done[branch.name], branch.stream)

    def collect(self, part: MicroBatch, results: dict[str, Rows]) -> None:
        """Wait for a part and put its rows where they belong, without the padding."""
        for branch, outputs in self._rows.items():
            self._device.synchronize(self._done[branch])
            for name, rows in outputs.items():
                results[name][part.start : part.stop] = rows[: part.stop - part.start]

    def _prepare(self, branch: CompiledBranch) -> list[Callable[[], None]]:
        """What to call for each profile."""
        # TensorRT writes every output of an engine; what nobody asked for is never copied back.
        outputs = {
            name: self._device.allocate(self._sizes[-1] * size * _FLOAT) for name, size in branch.outputs.items()
        }
        return [self._step(branch, profile, outputs) for profile in range(len(self._sizes))]

    def _step(self, branch: CompiledBranch, profile: int, outputs: Mapping[str, int]) -> Callable[[], None]:
        device, size = self._device, self._sizes[profile]
        context = branch.context(profile, self._on_device, outputs)
        copies = [
            (outputs[self._wanted[branch.name][name]], rows[:size]) for name, rows in self._rows[branch.name].items()
        ]

        def compute() -> None:
            branch.enqueue(context)
            for address, rows in copies:
                device.download(address, rows, branch.stream)

        # Once before it is captured: the first run allocates, and compiles kernels.
        compute()
        device.synchronize()
        if not branch.capturable(context):
            return compute
        graph = device.capture(branch.stream, compute)
        self.graphs += 1
        return lambda: device.launch(graph, branch.stream)


def _collect(waiting: deque[tuple[Buffers, MicroBatch]], results: dict[str, Rows]) -> None:
    buffers, part = waiting.popleft()
    buffers.collect(part, results)


def _choose(device: Device, bundle: Bundle, held: Bundle, precision: str) -> tuple[Sidecar, ModuleType]:
    """The engines of `precision`, among those that `held` holds, that fit this machine, and the library for them."""
    built = [sidecar for sidecar in read_sidecars(held) if sidecar.precision == precision]
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
            reasons = list(misfits(sidecar, held, here))
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
