"""Whether an NVIDIA driver and a GPU are here, asked of the driver itself, with no package installed.

Source: CUDA driver API, https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import sys

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100


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
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
