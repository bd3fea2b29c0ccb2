"""Runtimes behind one protocol: each of them loads the branches of a bundle and scores waveforms in the same way."""

from __future__ import annotations

from ser_batch.engines.protocol import (
    BACKENDS,
    Engine,
    available_backends,
    backend_version,
    open_engine,
    precisions,
)

__all__ = ["BACKENDS", "Engine", "available_backends", "backend_version", "open_engine", "precisions"]
