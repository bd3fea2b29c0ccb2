"""The staged training of the dual-branch fusion model: `train` a run (docs/api.md).

Importing the package imports nothing heavy. Types are in `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {"train": "training.api", "load_run": "training.runs", "Run": "training.runs"}
"""Name -> module that it is in."""

__all__ = ["Run", "load_run", "train"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
