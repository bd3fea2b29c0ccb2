"""Which runtimes are measured in which precisions: "openvino" means all it has, "openvino:bf16" that one."""

from __future__ import annotations

from collections.abc import Sequence

from ser_batch.bundle.bundle import Bundle
from ser_batch.engines import Engine, available_backends, open_engine, precisions
from ser_batch.errors import BundleError, EngineError


def check_backends(asked: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The backends to measure, each "name:precision", and why others are not; none asked for means all that can run.

    Raises:
        EngineError: one that was asked for is unknown or cannot run here, or none can.
    """
    reasons = available_backends()
    known = [backend for backend, reason in reasons.items() if reason is None]
    chosen: list[str] = []
    absent = {} if asked else {backend: reason for backend, reason in reasons.items() if reason is not None}
    for wanted in asked or known:
        backend, _, precision = wanted.partition(":")
        if backend not in reasons:
            raise EngineError(f"there is no backend {backend!r}", expected=", ".join(reasons))
        if reasons[backend] is not None:
            raise EngineError(f"backend {backend} cannot run here: {reasons[backend]}")
        unsupported = precisions(backend)
        if precision and precision not in unsupported:
            expected = " or ".join(unsupported)
            raise EngineError(f"backend {backend} has no precision {precision!r}", expected=expected)
        if precision and unsupported[precision] is not None:
            raise EngineError(f"backend {backend} cannot run in {precision} here: {unsupported[precision]}")
        for one, reason in unsupported.items():
            if reason is None and precision in ("", one):
                chosen.append(f"{backend}:{one}")
            elif reason is not None:
                absent[f"{backend}:{one}"] = reason
    if not chosen:
        raise EngineError("no backend can run here", got="; ".join(f"{k}: {v}" for k, v in reasons.items()))
    return tuple(dict.fromkeys(chosen)), absent


def check_bundle(
    bundle: Bundle, chosen: Sequence[str], asked: Sequence[str], threads: int | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Those of `chosen` that `bundle` has graphs for, and why others are not measured; each is opened once to see.

    Raises:
        BundleError: one that was asked for has none.
        EngineError: an engine is refused.
    """
    fit, absent = [], {}
    for backend in chosen:
        try:
            open_backend(bundle, backend, threads).close()
        except BundleError as error:
            if asked:
                raise
            absent[backend] = str(error)
        else:
            fit.append(backend)
    return tuple(fit), absent


def open_backend(bundle: Bundle, backend: str, threads: int | None = None, batch: int = 1) -> Engine:
    """Open "name" or "name:precision" for batches of `batch` clips; EngineError as `open_engine`."""
    name, _, precision = backend.partition(":")
    return open_engine(bundle, name, threads, precision or None, batch)


def identity(bundle: Bundle, engine: Engine) -> dict[str, str]:
    """The fields by which every measurement says what it is of."""
    return {"bundle": bundle.id, "backend": engine.name, "precision": engine.precision, "device": engine.device}


def check_batch(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """EngineError for a batch that an engine of a fixed profile (`max_batch`) does not hold."""
    largest = getattr(engine, "max_batch", None)
    if largest is not None and max(batch_sizes) > largest:
        raise EngineError(
            f"{engine.name} was built for batches of at most {largest}",
            got=max(batch_sizes),
            remedy="Ask for smaller batches, or build an engine whose profile holds them.",
        )
