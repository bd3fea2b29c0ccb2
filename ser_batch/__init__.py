"""Speech emotion recognition over directories of audio. Importing the package imports nothing heavy."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    # The version is written once, in pyproject.toml, and read only when someone asks.
    if name == "__version__":
        from importlib.metadata import version

        return version("ser-batch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
