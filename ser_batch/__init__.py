"""Speech emotion recognition over directories of audio: `load` a model, or `run` over folders (docs/api.md).

Importing the package imports nothing heavy: what is asked for is imported then. Types are in `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"
"""Written here alone: pyproject.toml reads it, and a run does not search the installed packages for it."""

_HOMES = {
    "load": "ser_batch.api",
    "run": "ser_batch.commands",
    "adapt": "ser_batch.commands",
    "evaluate": "ser_batch.commands",
    "fit_head": "ser_batch.commands",
    "Model": "ser_batch.api",
    "Prediction": "ser_batch.prediction",
    "Predictions": "ser_batch.prediction",
    "RunSummary": "ser_batch.pipeline.summary",
    "SerError": "ser_batch.errors",
}
"""Name -> module that it is in."""

__all__ = [
    "Model",
    "Prediction",
    "Predictions",
    "RunSummary",
    "SerError",
    "__version__",
    "adapt",
    "evaluate",
    "fit_head",
    "load",
    "run",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
