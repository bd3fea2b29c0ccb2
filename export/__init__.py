"""From a trained run to a bundle, and the proof that its graphs equal what was trained (docs/api.md).

Importing the package imports nothing heavy. Types are in `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "export_run": "export.api",
    "export_whisper": "export.heads",
    "keep_heads": "export.heads",
    "verify": "export.api",
    "quantize": "export.precision",
    "build_engines": "export.tensorrt",
}
"""Name -> module that it is in."""

__all__ = ["build_engines", "export_run", "export_whisper", "keep_heads", "quantize", "verify"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
