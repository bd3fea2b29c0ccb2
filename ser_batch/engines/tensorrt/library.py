"""The two TensorRTs, whose Python interfaces are nearly the same: native TensorRT, and TensorRT for RTX.

Native TensorRT compiles for the GPU it finds. TensorRT for RTX compiles ahead of time, without a GPU, for the
generations that it is given, and finishes on the GPU that runs the engine. They cannot read each other's engines.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ser_batch.errors import EngineError

NO_DRIVER = (
    "driver version is insufficient",
    "no cuda-capable device",
    "cuda initialization failure",
    "factory function returned nullptr",
)
"""What a message has, in lower case, where there is no driver or too old a one. The last is all that the bindings of
native TensorRT raise then (NVIDIA/TensorRT#2913)."""
_CUDA_FAILS = "cuda initialization failure"
_LAST_ERRORS = 50


@dataclass(frozen=True)
class Library:
    """One of the two, as a pip package."""

    name: str
    """As `--runtime` and the engines' folders name it; the extra of ser-batch that brings it is called the same."""
    title: str
    modules: tuple[str, ...]
    """Any of which is the library: NVIDIA's wheels name it differently."""
    ahead_of_time: bool
    """Whether it compiles for GPUs that are not there."""

    def installed(self) -> str | None:
        """The first of its modules that is installed, which is not imported for this; None if there is none."""
        return next((module for module in self.modules if importlib.util.find_spec(module) is not None), None)

    @property
    def remedy(self) -> str:
        """How to install it."""
        return f"pip install 'ser-batch[{self.name}]'"


NATIVE = Library("trt", "TensorRT", ("tensorrt",), ahead_of_time=False)
RTX = Library("trt-rtx", "TensorRT for RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"), ahead_of_time=True)
LIBRARIES = {library.name: library for library in (NATIVE, RTX)}
"""Name → library, the one that `auto` prefers first."""


def load(library: Library) -> ModuleType:
    """Import `library`.

    Raises:
        EngineError: it is not installed, or cannot be imported.
    """
    module = library.installed()
    if module is None:
        raise EngineError(f"{library.title} is not installed", remedy=f"Install it: {library.remedy}.")
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        # A shared library of CUDA's that is missing shows as either.
        raise EngineError(f"{library.title} cannot be imported", got=error, remedy="Install it anew.") from error


def version(trt: ModuleType) -> str:
    """The version of a library, as its engines are tied to it."""
    return str(trt.__version__)


def make_log(trt: ModuleType) -> Any:
    """A logger for `trt` that keeps its last errors in `.errors`, for the message of what then fails."""

    class Log(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_LAST_ERRORS)

        def log(self, severity: Any, message: str) -> None:
            grave = severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)
            # Native TensorRT calls it a warning, and then fails of it.
            if grave or _CUDA_FAILS in message.lower():
                self.errors.append(message.strip())

    return Log()
