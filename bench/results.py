"""Results on disk: one JSON document a command, raw values included, and a flat Parquet table of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from bench.environment import concluded
from ser_batch.errors import InputError, OutputError

SCHEMA_VERSION = 1
KINDS = (
    "latency",
    "throughput",
    "formats",
    "resume",
    "peers",
    "end_to_end",
    "startup",
    "training",
    "smoke",
    "gpu_sweep",
)
FOLDER = Path(__file__).parent / "results"
"""Where results that docs/benchmarks.md shows are committed."""
IDENTITY = ("bundle", "backend", "precision", "device", "target", "batch", "mode")
"""Columns that tell one latency measurement from another."""
NUMBERS = {"batch": "batch {}", "workers": "{} workers", "files": "{} files"}
"""How the numbers among a row's fields are written, where they stand beside names."""

Document = dict[str, Any]


def document(kind: str, environment: dict[str, Any], **content: Any) -> Document:
    """A result as plain JSON types: its kind and environment, then what the command found; call it right after."""
    return {"schema_version": SCHEMA_VERSION, "kind": kind, "environment": concluded(environment), **_plain(content)}


def write(result: Document, path: Path) -> None:
    """Write `result` as JSON; OutputError if it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written", got=error.strerror) from error


def read(path: Path) -> Document:
    """Read a result; InputError if it is none, or of another schema."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error.strerror) from error
    except ValueError as error:
        raise InputError(f"{path} is no benchmark result", got=error) from error
    if not isinstance(result, dict) or result.get("kind") not in KINDS:
        raise InputError(f"{path} is no benchmark result", expected=f"a kind of {', '.join(KINDS)}")
    if result.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is of another schema", got=result.get("schema_version"), expected=SCHEMA_VERSION)
    return result


def committed(folder: Path = FOLDER) -> list[tuple[str, Document]]:
    """(file name, result) of every committed result, ordered by name."""
    return [(path.name, read(path)) for path in sorted(folder.glob("*.json"))]


def write_parquet(result: Document, path: Path) -> None:
    """Write the raw timings, a row a value: the columns of `IDENTITY`, `stage`, `turn`, `seconds`.

    Raises:
        InputError: the result has no measurements.
        OutputError: `path` cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {**{key: found[key] for key in IDENTITY}, "stage": stage, "turn": turn, "seconds": seconds}
        for found in result.get("measurements", [])
        for stage, series in found["stages"].items()
        for turn, seconds in enumerate(series["raw"])
    ]
    if not rows:
        raise InputError(f"a result of kind {result['kind']} has no raw timings to write as Parquet")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    except OSError as error:
        raise OutputError(f"{path} cannot be written", got=error) from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    # Nanoseconds are below what any of these clocks resolves.
    return round(value, 9) if isinstance(value, float) else value
