"""Where the data beside the project lies, if it is there."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"
RAVDESS = SHARED / "ravdess"
