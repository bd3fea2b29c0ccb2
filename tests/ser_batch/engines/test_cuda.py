"""Whether there is a GPU, over a fake driver. The device: over the real bindings without a driver, and over a fake."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from ser_batch.engines import cuda
from ser_batch.engines.cuda import CudaDevice, load_runtime, no_gpu, open_cuda_device
from ser_batch.errors import EngineError

HOST = np.zeros((2, 3), np.float32)
CALLS: dict[str, tuple[Any, ...]] = {
    "allocate": (1024,),
    "page_locked": ((2, 3),),
    "stream": (),
    "event": (),
    "upload": (HOST, 0, 0),
    "download": (0, HOST, 0),
    "record": (0, 0),
    "wait": (0, 0),
    "synchronize": (),
    "capture": (0, lambda: None),
    "launch": (0, 0),
}


def bare(runtime: Any) -> CudaDevice:
    """A device whose constructor, which needs a driver, has not run."""
    device = object.__new__(CudaDevice)
    device._runtime, device._owned = runtime, []
    return device


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
@pytest.mark.parametrize("method", sorted(CALLS))
def test_the_real_bindings_take_every_call_and_refuse_it_for_want_of_a_driver(method: str) -> None:
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match=r"cuda\w+ failed; got CUDA driver version is insufficient.* .CUDA error 35"):
        getattr(bare(load_runtime()), method)(*CALLS[method])


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_none_is_opened() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match=r"no GPU can be used; got (there is no|the) NVIDIA driver"):
        open_cuda_device()
    with pytest.raises(EngineError, match="cudaSetDevice failed"):
        CudaDevice(load_runtime())


def test_without_the_bindings_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "no_gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"cuda-bindings cannot be imported.*ser-batch\[trt\]"):
        open_cuda_device()


class Granting:
    """A CUDA runtime that grants everything but `fails`, with status `status`, and tells what was asked."""

    cudaError_t = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)  # noqa: N815
    cudaStreamNonBlocking, cudaEventDisableTiming, cudaEventBlockingSync = 1, 2, 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )
    results: ClassVar[dict[str, Any]] = {
        "cudaGetDeviceProperties": SimpleNamespace(name=b"NVIDIA Test\0\0"),
        "cudaMalloc": 4096,
        "cudaStreamCreateWithFlags": 11,
        "cudaEventCreateWithFlags": 12,
        "cudaStreamEndCapture": 13,
        "cudaGraphInstantiate": 14,
    }

    def __init__(self, fails: str = "", status: int = 999) -> None:
        self.fails, self.status = fails, status
        self.asked: list[str] = []
        self.host = (ctypes.c_float * 6)(*[7.0] * 6)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.asked.append(" ".join([name, *map(str, arguments)]) if name.endswith(("Free", "Destroy")) else name)
            if name == "cudaGetErrorString":
                return 0, b"a reason"
            if name == self.fails:
                return (self.status, None)
            if name == "cudaDeviceGetAttribute":
                return 0, {"major": 8, "minor": 9}[arguments[0]]
            if name == "cudaMallocHost":
                return 0, ctypes.addressof(self.host)
            return (0, self.results[name]) if name in self.results else (0,)

        return call


def test_it_says_which_gpu_it_is() -> None:
    device = CudaDevice(Granting())
    assert (device.name, device.compute_capability) == ("NVIDIA Test", "8.9")


def test_page_locked_memory_is_an_array_of_zeros() -> None:
    # The memory is the runtime's, which must outlive the array as it does in an engine.
    device = CudaDevice(runtime := Granting())
    array = device.page_locked((2, 3))
    assert array.ctypes.data == ctypes.addressof(runtime.host)
    assert array.shape == (2, 3) and array.dtype == np.float32 and not array.any()


def test_everything_is_freed_last_made_first() -> None:
    device = CudaDevice(runtime := Granting())
    device.allocate(64)
    device.stream()
    device.event()
    device.capture(11, lambda: None)
    runtime.asked.clear()
    device.close()
    assert runtime.asked == [
        "cudaDeviceSynchronize",
        "cudaGraphExecDestroy 14",
        "cudaEventDestroy 12",
        "cudaStreamDestroy 11",
        "cudaFree 4096",
    ]


def test_memory_that_runs_out_has_a_remedy() -> None:
    device = CudaDevice(Granting(fails="cudaMalloc", status=2))
    with pytest.raises(
        EngineError, match=r"no memory left; got a reason .CUDA error 2.. .*smaller batch sizes: ser-export"
    ):
        device.allocate(2**50)


def test_a_capture_is_ended_when_what_it_holds_fails() -> None:
    device = CudaDevice(runtime := Granting())
    with pytest.raises(ZeroDivisionError):
        device.capture(11, lambda: 1 // 0)
    assert runtime.asked[-1] == "cudaStreamEndCapture"


def test_a_graph_that_cannot_be_made_leaves_nothing_behind() -> None:
    device = CudaDevice(runtime := Granting(fails="cudaGraphInstantiate"))
    with pytest.raises(EngineError, match="cudaGraphInstantiate failed; got a reason"):
        device.capture(11, lambda: None)
    assert runtime.asked[-1] == "cudaGraphDestroy 13" and not device._owned


def driver(*, init: int = 0, count: int = 1, status: int = 0, version: int = 13000) -> SimpleNamespace:
    def set_int(value: int, code: int) -> object:
        def call(pointer: object) -> int:
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = value
            return code

        return call

    return SimpleNamespace(
        cuInit=lambda flags: init,
        cuDeviceGetCount=set_int(count, status),
        cuDriverGetVersion=set_int(version, 0),
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "there is no NVIDIA driver"),
        (driver(init=100), "sees no GPU"),
        (driver(count=0), "sees no GPU"),
        (driver(init=803), r"cannot be used .CUDA error 803."),
        (driver(status=3), r"cannot be used .CUDA error 3."),
    ],
)
def test_each_way_not_to_have_a_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, found: SimpleNamespace | None, message: str
) -> None:
    monkeypatch.setattr(cuda, "_driver", lambda: found)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(cuda.no_gpu())


def test_a_gpu_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_driver", driver)
    assert cuda.no_gpu() is None
    assert cuda.driver_cuda() == "13.0"


def test_without_a_driver_it_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_DRIVER", "libno-such-driver.so.1")
    assert cuda.driver_cuda() is None and "no NVIDIA driver" in (cuda.no_gpu() or "")
