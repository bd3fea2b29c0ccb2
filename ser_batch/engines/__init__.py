"""Runtimes behind one protocol; each is a module that is imported only when it is asked for.

A backend's module offers two functions: `unavailable() -> str | None`, why it cannot run here (None: it can),
without importing the runtime; and `open_bundle(bundle, threads) -> Engine`. To add one, write the module
and add its line to `BACKENDS`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ser_batch.bundle import Bundle
from ser_batch.engines.protocol import Engine
from ser_batch.errors import EngineError

__all__ = ["BACKENDS", "Engine", "available_backends", "open_engine"]

BACKENDS: dict[str, str] = {
    "onnxruntime": "ser_batch.engines.onnxruntime",
}
"""Backend -> module, in the order in which "auto" tries them."""


def available_backends() -> dict[str, str | None]:
    """Every backend and why it cannot run here, with the remedy; None where it can."""
    return {name: _module(name).unavailable() for name in BACKENDS}


def open_engine(bundle: Bundle, backend: str = "auto", threads: int | None = None) -> Engine:
    """Load the branches of `bundle` in a runtime.

    Args:
        backend: a name of `BACKENDS`, or "auto" for the first that is available.
        threads: CPU threads within one branch; None leaves the choice to the runtime.

    Raises:
        EngineError: no such backend, none installed, or the runtime refuses a branch.
    """
    reasons = available_backends()
    if threads is not None and threads < 1:
        raise EngineError("an engine needs at least one thread", got=threads)
    if backend == "auto":
        backend = next((name for name, reason in reasons.items() if reason is None), "")
        if not backend:
            raise EngineError(
                "no backend can run here", got="; ".join(f"{k}: {v}" for k, v in reasons.items())
            )
    if backend not in reasons:
        raise EngineError(f"there is no backend {backend!r}", expected=f"auto, {_listing(reasons)}")
    if reasons[backend] is not None:
        raise EngineError(f"backend {backend} cannot run here: {reasons[backend]}", got=_listing(reasons))
    engine: Engine = _module(backend).open_bundle(bundle, threads)
    return engine


def _listing(reasons: dict[str, str | None]) -> str:
    return ", ".join(f"{k} ({'not installed' if reason else 'installed'})" for k, reason in reasons.items())


def _module(name: str) -> ModuleType:
    return importlib.import_module(BACKENDS[name])
