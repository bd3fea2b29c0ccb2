"""Runtimes behind one protocol; each is a module that is imported only when it is asked for.

A backend's module offers

    PRECISIONS                                   what it can be opened in, the default first
    unavailable() -> str | None                  why it cannot run here (None: it can), without importing the runtime
    unsupported(precision) -> str | None         why this machine cannot run that precision; may import the runtime
    version() -> str                             of the runtime that is installed
    open_bundle(bundle, threads, precision, batch)  -> Engine

To add one, write the module and add its line to `BACKENDS`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines.protocol import Engine
from ser_batch.errors import EngineError
from ser_batch.machine import cpu_limit

__all__ = ["AUTO", "BACKENDS", "Engine", "available_backends", "backend_version", "open_engine", "precisions"]

AUTO = "auto"
BACKENDS: dict[str, str] = {
    "onnxruntime": "ser_batch.engines.onnxruntime",
    "openvino": "ser_batch.engines.openvino",
    "trt": "ser_batch.engines.tensorrt",
    "onnxruntime-cuda": "ser_batch.engines.onnxruntime_cuda",
}
"""Backend -> module, the portable default first."""


def available_backends() -> dict[str, str | None]:
    """Every backend and why it cannot run here, with the remedy; None where it can."""
    return {name: _module(name).unavailable() for name in BACKENDS}


def precisions(backend: str) -> dict[str, str | None]:
    """Every precision of an installed backend, its default first, and why this machine cannot run it, or None."""
    module = _installed(backend)
    return {precision: module.unsupported(precision) for precision in module.PRECISIONS}


def backend_version(backend: str) -> str:
    """The version of an installed backend's runtime."""
    return str(_installed(backend).version())


def open_engine(
    bundle: Bundle,
    backend: str = AUTO,
    threads: int | None = None,
    precision: str | None = None,
    batch: int = 1,
) -> Engine:
    """Load the branches of `bundle` in a runtime.

    Args:
        backend: a name of `BACKENDS`, or "auto": see `ser_batch.engines.choice.choose`.
        threads: CPU threads; None leaves the choice to the runtime, within the quota of a container.
        precision: of the arithmetic ("fp32", "bf16"); None: the backend's default, or what "auto" finds best.
        batch: clips that will usually be scored together. Any number may be; on a CPU, an engine opened for a large
            batch scores it faster, and a single clip slower.

    Raises:
        EngineError: no such backend or precision, none installed, or the runtime refuses a branch.
    """
    if threads is not None and threads < 1:
        raise EngineError("an engine needs at least one thread", got=threads)
    if batch < 1:
        raise EngineError("an engine scores at least one clip at a time", got=batch)
    if backend == AUTO:
        # Here, because the choice itself asks what is installed.
        from ser_batch.engines.choice import choose

        chosen = choose(bundle, precision=precision)
        backend, precision = chosen.backend, chosen.precision
    module = _installed(backend)
    precision = precision or module.PRECISIONS[0]
    if precision not in module.PRECISIONS:
        raise EngineError(
            f"backend {backend} has no such precision", got=precision, expected=" or ".join(module.PRECISIONS)
        )
    engine: Engine = module.open_bundle(bundle, threads or cpu_limit(), precision, batch)
    return engine


def _installed(backend: str) -> ModuleType:
    if backend not in BACKENDS:
        raise EngineError(f"there is no backend {backend!r}", expected=f"auto, {_listing()}")
    module = _module(backend)
    if (reason := module.unavailable()) is not None:
        raise EngineError(f"backend {backend} cannot run here: {reason}", got=_listing())
    return module


def _listing() -> str:
    return ", ".join(
        f"{name} ({'not available' if reason else 'available'})" for name, reason in available_backends().items()
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(BACKENDS[name])
