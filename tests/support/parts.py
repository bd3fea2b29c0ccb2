"""A small table in parts of four rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import ser_batch.output.compaction
import ser_batch.output.parts
from ser_batch.output.destination import Output
from ser_batch.output.parts import Parts

TABLE = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("status", pa.dictionary(pa.int16(), pa.string())),
        pa.field("source_size", pa.int64()),
        pa.field("source_mtime_ns", pa.int64()),
    ],
    metadata={"ser_batch.backend": "one"},
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ser_batch.output.parts, "PART_ROWS", 4)
    monkeypatch.setattr(ser_batch.output.compaction, "GROUP_ROWS", 8)


def batch(names: str, score: float = 0.5, version: int = 1) -> Any:
    count = len(names)
    columns = [list(names), [score] * count, ["ok"] * count, [version] * count, [2] * count]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(column, field.type if field.name != "status" else pa.string()).cast(field.type)
            for column, field in zip(columns, TABLE, strict=True)
        ],
        schema=TABLE,
    )


def opened(out: Path | str, order: str, *, resume: bool = True) -> Parts:
    return Parts(Output.parse(out), TABLE, order, resume=resume)


def fill(out: Path | str, names: str, *, order: str | None = None, resume: bool = False, score: float = 0.5) -> Parts:
    """Rows of `names`, three at a time, in an output whose recordings are `order`; None: the same."""
    parts = opened(out, names if order is None else order, resume=resume)
    for start in range(0, len(names), 3):
        parts.append(batch(names[start : start + 3], score))
    return parts


def done(parts: Parts, names: str) -> str:
    """Those of `names` that have rows."""
    return "".join(name for name in names if parts.index.find(name))
