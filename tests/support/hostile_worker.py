"""A decode process whose decoder crashes or hangs at files of certain names; stands in for a broken codec."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import ser_batch.audio.windows
import ser_batch.decode.segments
from ser_batch.decode.worker import main

__all__ = ["main"]


def hostile(read: Any) -> Any:
    def read_it(path: str, *arguments: Any, **options: Any) -> Any:
        name = Path(path).name
        if "abort" in name:
            os.abort()
        if "segfault" in name:
            ctypes.string_at(0)
        if "hang" in name:
            time.sleep(3600)
        once = Path(path + ".once")
        if once.exists():
            once.unlink()
            os.abort()
        return read(path, *arguments, **options)

    return read_it


ser_batch.decode.segments.read_segments = hostile(ser_batch.decode.segments.read_segments)
