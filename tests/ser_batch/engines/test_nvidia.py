from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from ser_batch.engines import nvidia


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
    monkeypatch.setattr(nvidia, "_driver", lambda: found)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(nvidia.no_gpu())


def test_a_gpu_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_driver", driver)
    assert nvidia.no_gpu() is None
    assert nvidia.driver_cuda() == "13.0"


def test_without_a_driver_it_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_LIBRARY", "libno-such-driver.so.1")
    assert nvidia.driver_cuda() is None and "no NVIDIA driver" in (nvidia.no_gpu() or "")
