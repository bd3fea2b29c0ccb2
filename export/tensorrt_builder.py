"""One ONNX graph → one TensorRT engine, the same way in native TensorRT 10.12 to 11 and in TensorRT for RTX.

The network is strongly typed: the graph states each tensor's type, and the builder changes none. Each batch size is
an optimisation profile of its own, because one wide profile is slow at all of its sizes (NVIDIA/TensorRT#3300).

TensorRT for RTX builds for named GPU generations and compute capabilities; source of those:
https://developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ser_batch.engines.tensorrt.library import NO_DRIVER, make_log
from ser_batch.errors import ExportError

Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, the steps of it that are done, and how many it has."""

GENERATIONS = {
    "turing": ("7.5",),
    "ampere": ("8.0", "8.6"),
    "ada": ("8.9",),
    "hopper": ("9.0",),
    "blackwell": ("12.0", "12.1"),
}
"""Generation → compute capabilities; of Blackwell those of its graphics cards, not of its data centre cards."""
DEFAULT = ("ampere", "ada", "blackwell")
"""Turing has no fp32 matrix products in TensorRT for RTX, and the front-ends of the branches are made of them."""
_NONE = ("NONE", "CURRENT")
_NO_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "bad_alloc")
_NO_FP32_PRODUCTS = "fp32 gemm is not supported"


@dataclass(frozen=True)
class Target:
    """What one engine is to run on."""

    name: str
    """For the folder of the engines: "ampere-ada"."""
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What to build."""

    branch: str
    graph: Path
    batches: tuple[int, ...]
    """Ascending; the optimisation profiles, in this order."""
    target: Target | None
    """None: the GPU that is here."""


def build_engine(
    trt: ModuleType, request: Request, *, timing_cache: bytes | None = None, progress: Progress | None = None
) -> tuple[Any, bytes | None]:
    """Build the engine of one branch.

    Args:
        timing_cache: what an earlier build on this GPU returned (b"": none yet), which makes this one faster; None for
            a library that measures nothing while it builds.

    Returns:
        The serialised engine, a buffer; and the timing cache with this build's measurements, if one was given.

    Raises:
        ExportError: a node is not supported, the builder runs out of memory, finds no driver, or gives up.
        KeyboardInterrupt: the build was cancelled by Ctrl-C.
    """
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:
        # What the bindings raise where the C++ factory returns nothing: native TensorRT without a driver.
        raise _refusal(request, [*log.errors, str(error)]) from error
    network = _parse(trt, builder, request, log)
    config = _configure(trt, builder, network, request)
    if timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(timing_cache), False)
    monitor = _make_monitor(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise _refusal(request, log.errors)
    return plan, bytes(config.get_timing_cache().serialize()) if timing_cache is not None else None


def _parse(trt: ModuleType, builder: Any, request: Request, log: Any) -> Any:
    # TensorRT 11 knows no other networks: it takes the flag and ignores it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(request.graph.read_bytes(), str(request.graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _refusal(
            request, log.errors, [f"{e.node_operator()} {e.node_name()}".strip() for e in errors if e.node_operator()]
        )
    return network


def _configure(trt: ModuleType, builder: Any, network: Any, request: Request) -> Any:
    config = builder.create_builder_config()
    waveform = network.get_input(0)
    for batch in request.batches:
        profile = builder.create_optimization_profile()
        shape = (batch, *tuple(waveform.shape)[1:])
        profile.set_shape(waveform.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    # On by default, it would round the fp32 of the front-ends to ten bits, and decibels do not survive that.
    config.clear_flag(trt.BuilderFlag.TF32)
    # Without it TensorRT for RTX may allocate while it runs, which a CUDA graph cannot hold.
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if request.target is not None:
        config.num_compute_capabilities = len(request.target.capabilities)
        for index, capability in enumerate(request.target.capabilities):
            if not config.set_compute_capability(enumerator(capability, trt), index):
                raise ExportError(f"the builder does not take compute capability {capability}")
    return config


def _make_monitor(trt: ModuleType, progress: Progress | None) -> Any:
    """Hands the builder's steps to `progress`; Ctrl-C cancels the build instead of unwinding through C++."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self._steps.get(phase_name, 0))

        def _report(self, phase: str, done: int) -> None:
            try:
                if progress is not None and not self.interrupted:
                    progress(phase, done, self._steps.get(phase, done))
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()


def _refusal(request: Request, errors: Iterable[str], nodes: Sequence[str] = ()) -> ExportError:
    """The builder's errors, and the nodes they are about, as one of ours with what to do about it."""
    lines = [line for error in errors if (line := " ".join(error.split()))]
    text = " ".join(lines).lower()
    if any(sign in text for sign in _NO_MEMORY):
        what, remedy = (
            "out of memory while building",
            "Build fewer or smaller batch sizes (--batch), or a lower precision.",
        )
    elif _NO_FP32_PRODUCTS in text:
        what = "compute capability 7.5 has no fp32 matrix products, which the front-end needs, for"
        remedy = "Leave --gpu turing out; on such a GPU build with native TensorRT (--runtime trt)."
    elif any(sign in text for sign in NO_DRIVER):
        what, remedy = (
            "there is no usable NVIDIA driver for building",
            "Build with TensorRT for RTX: --runtime trt-rtx.",
        )
    elif nodes:
        what = f"TensorRT does not support a node ({', '.join(nodes)}) of"
        remedy = "Export the bundle again: ser-export onnx writes operators that it does."
    else:
        what, remedy = "TensorRT refuses", None
    return ExportError(f"{what} branch {request.branch}", got=lines[0] if lines else None, remedy=remedy)


def parse_target(gpus: Sequence[str], trt: ModuleType) -> Target:
    """The target that covers `gpus`, generations ("ada") or compute capabilities ("8.9"); none: `DEFAULT`.

    Args:
        trt: TensorRT for RTX, which knows what it can compile for.

    Raises:
        ExportError: no such generation or capability, or one it does not compile for.
    """
    known = {cap: name for name, caps in GENERATIONS.items() for cap in caps}
    capabilities: list[str] = []
    for gpu in (names := tuple(dict.fromkeys(gpu.lower() for gpu in gpus)) or DEFAULT):
        found = GENERATIONS.get(gpu, (gpu,) if gpu in known else ())
        if not found:
            raise ExportError(
                "there is no such GPU generation or compute capability",
                got=gpu,
                expected=", ".join([*GENERATIONS, *known]),
            )
        capabilities += [capability for capability in found if capability not in capabilities]
    supported = supported_capabilities(trt)
    refused = [capability for capability in capabilities if capability not in supported]
    if refused:
        raise ExportError(
            f"TensorRT for RTX {trt.__version__} does not build for compute capability {', '.join(refused)}",
            got=", ".join(names),
            expected=", ".join(supported),
            remedy="On such a GPU build with native TensorRT (--runtime trt), or run --backend onnxruntime-cuda.",
        )
    return Target("-".join(name.replace(".", "") if name in known else name for name in names), tuple(capabilities))


def supported_capabilities(trt: ModuleType) -> tuple[str, ...]:
    """What `trt` can compile for ahead of time, ascending: its enumeration has a member SM89 for 8.9."""
    members = [name.removeprefix("SM") for name in trt.ComputeCapability.__members__ if name not in _NONE]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(members, key=int))


def enumerator(capability: str, trt: ModuleType) -> object:
    """The member of `trt`'s enumeration for a capability that it supports."""
    return getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
