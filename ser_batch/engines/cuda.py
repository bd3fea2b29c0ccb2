"""NVIDIA GPUs: whether there is one, what the TensorRT engine asks of it, and the real one behind NVIDIA's bindings.

`no_gpu` asks the driver itself, with no package installed. `Device` is memory, copies, streams, events and graphs by
plain handles: a fake of it tests the engine where there is no GPU. Work that is put on a stream runs in order within
the stream and, but for events, in any order with other streams. `CudaDevice` is the first GPU, through cuda-bindings;
CUDA_VISIBLE_DEVICES says which one is the first.
Source: CUDA driver API, https://docs.nvidia.com/cuda/cuda-driver-api/, and CUDA runtime API,
https://docs.nvidia.com/cuda/cuda-runtime-api/.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.errors import EngineError

Rows = npt.NDArray[np.float32]
Handle = int
"""Of a stream, an event or a graph."""
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100
_REMEDY = "Install it: pip install 'ser-batch[trt]' or 'ser-batch[trt-rtx]'."
_SMALLER = "Free the GPU's memory, or build engines of smaller batch sizes: ser-export trt --batch."


def no_gpu() -> str | None:
    """Why there is no NVIDIA GPU to run on, with the remedy; None if there is one."""
    driver = _driver()
    if driver is None:
        return "there is no NVIDIA driver; install one, or run on a machine with an NVIDIA GPU"
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status not in (0, _NO_DEVICE):
        return f"the NVIDIA driver cannot be used (CUDA error {status}); see what nvidia-smi says"
    if count.value == 0:
        return "the NVIDIA driver sees no GPU; see what nvidia-smi says, and CUDA_VISIBLE_DEVICES"
    return None


def driver_cuda() -> str | None:
    """The highest version of CUDA that the driver runs ("13.0"); None where there is no driver."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError:
        return None


class Device(Protocol):
    """One GPU. Every method raises EngineError where the GPU refuses."""

    @property
    def name(self) -> str:
        """As the vendor calls it."""

    @property
    def compute_capability(self) -> str:
        """Its architecture: "8.9"."""

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of its memory, which `close` frees."""

    def page_locked(self, shape: tuple[int, int]) -> Rows:
        """An array of zeros in host memory that the GPU copies from and to by itself; gone after `close`."""

    def stream(self) -> Handle:
        """A new stream."""

    def event(self) -> Handle:
        """A new event; one that was never recorded has happened."""

    def upload(self, source: Rows, target: int, stream: Handle) -> None:
        """Put a copy from page-locked memory to an address on a stream."""

    def download(self, source: int, target: Rows, stream: Handle) -> None:
        """Put a copy from an address to page-locked memory on a stream."""

    def record(self, event: Handle, stream: Handle) -> None:
        """Let the event happen when the stream gets here."""

    def wait(self, stream: Handle, event: Handle) -> None:
        """Let the stream wait for the event as it was last recorded."""

    def synchronize(self, event: Handle | None = None) -> None:
        """Block until the event has happened; None: until all work is done."""

    def capture(self, stream: Handle, enqueue: Callable[[], None]) -> Handle:
        """What `enqueue` puts on the stream, as a graph that is launched at once; it does not run now."""

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Put a graph on a stream."""

    def close(self) -> None:
        """Free everything that was made; no other method may be called again."""


def open_cuda_device() -> CudaDevice:
    """Open the first GPU.

    Raises:
        EngineError: there is no driver, no GPU, or no cuda-bindings.
    """
    if (reason := no_gpu()) is not None:
        raise EngineError("no GPU can be used", got=reason)
    return CudaDevice(load_runtime())


def load_runtime() -> Any:
    """The module `cuda.bindings.runtime`.

    Raises:
        EngineError: it is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError("cuda-bindings cannot be imported", got=error, remedy=_REMEDY) from error
    return runtime


class CudaDevice:
    """A `Device`; `runtime` is the module of the bindings."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._owned: list[tuple[str, Any]] = []
        """What frees each thing that was made, and its handle, in the order of making."""
        self._call("cudaSetDevice", 0)
        attributes = runtime.cudaDeviceAttr
        numbers = [
            self._call("cudaDeviceGetAttribute", attribute, 0)
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        ]
        self.compute_capability = ".".join(map(str, numbers))
        self.name = bytes(self._call("cudaGetDeviceProperties", 0).name).partition(b"\0")[0].decode()

    def allocate(self, size: int) -> int:
        """Address of `size` bytes."""
        return self._own("cudaFree", self._call("cudaMalloc", size))

    def page_locked(self, shape: tuple[int, int]) -> Rows:
        """Zeros in page-locked host memory."""
        count = shape[0] * shape[1]
        address = self._own("cudaFreeHost", self._call("cudaMallocHost", count * np.dtype(np.float32).itemsize))
        array: Rows = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
        array[:] = 0
        return array

    def stream(self) -> Handle:
        """A stream that does not wait for the default one."""
        flags = self._runtime.cudaStreamNonBlocking
        return self._own("cudaStreamDestroy", self._call("cudaStreamCreateWithFlags", flags))

    def event(self) -> Handle:
        """An event without timing; the host sleeps while it waits for it, as decoding needs the CPUs."""
        flags = self._runtime.cudaEventDisableTiming | self._runtime.cudaEventBlockingSync
        return self._own("cudaEventDestroy", self._call("cudaEventCreateWithFlags", flags))

    def upload(self, source: Rows, target: int, stream: Handle) -> None:
        """Host to device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source.ctypes.data, source.nbytes, kind, stream)

    def download(self, source: int, target: Rows, stream: Handle) -> None:
        """Device to host."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, source, target.nbytes, kind, stream)

    def record(self, event: Handle, stream: Handle) -> None:
        """Record `event`."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: Handle, event: Handle) -> None:
        """Let `stream` wait."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, event: Handle | None = None) -> None:
        """Wait for `event`, or for everything."""
        if event is None:
            self._call("cudaDeviceSynchronize")
        else:
            self._call("cudaEventSynchronize", event)

    def capture(self, stream: Handle, enqueue: Callable[[], None]) -> Handle:
        """Capture and instantiate a graph."""
        # Of this thread alone: another one may well allocate meanwhile.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            # Ended in any case, or the stream stays unusable; its own error would hide the first.
            self._runtime.cudaStreamEndCapture(stream)
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._own("cudaGraphExecDestroy", self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Launch `graph`."""
        self._call("cudaGraphLaunch", graph, stream)

    def close(self) -> None:
        """Free everything, last made first; errors are no news here: the work is done, or has failed already."""
        self._runtime.cudaDeviceSynchronize()
        while self._owned:
            free, handle = self._owned.pop()
            getattr(self._runtime, free)(handle)

    def _own(self, free: str, handle: Any) -> Handle:
        self._owned.append((free, handle))
        return int(handle)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call `function` of the runtime and return its result, if it has one."""
        status, *results = getattr(self._runtime, function)(*arguments)
        errors = self._runtime.cudaError_t
        if status != errors.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(status)
            raise EngineError(
                "the GPU has no memory left" if status == errors.cudaErrorMemoryAllocation else f"{function} failed",
                got=f"{text.decode()} (CUDA error {int(status)})",
                remedy=_SMALLER if status == errors.cudaErrorMemoryAllocation else None,
            )
        return results[0] if results else None
