"""Where the data of the project and beside it lies, if it is there."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = REPOSITORY / "training" / "results"
"""The committed results of the reproduction."""
SHARED = REPOSITORY.parent / "shared"
RAVDESS = SHARED / "ravdess"
