"""Results on disk: one JSON document per command, raw values included, and a flat Parquet table of timings.

`compare` says what changed from one result to another, as ratios of the second to the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environment import with_clocks_at_end
from ser_batch.errors import InputError
from ser_batch.files import write_json, writing
from ser_batch.strict_json import parse
from ser_batch.text import shareable_text

SCHEMA_VERSION = 1
KINDS = (
    *("latency", "throughput", "formats", "resume", "peers", "end_to_end", "startup", "training", "smoke"),
    *("precisions", "gpu_sweep", "adaptation"),
)
IDENTITY = ("bundle", "backend", "precision", "device", "target", "batch", "mode")
"""Columns that identify a latency measurement."""
NUMBERS = {"batch": "batch {}", "workers": "{} workers", "files": "{} files"}
"""How a row's numbers are written beside its names."""
_ABOUT = (
    *("command", "label", "branch", "backend", "precision", "target", "format", "step", "files", "batch", "workers"),
    "mode",
)
"""The fields that identify the row that a warning is about."""
_LISTS = ("measurements", "candidates", "commands", "branches", "steps")
"""Where the rows of a result are."""

Document = dict[str, Any]
Results = list[tuple[str, Document]]
"""(path, result)."""
_ENGINE = ("bundle", "backend", "precision", "device")
_ROWS = {
    "latency": ("measurements", IDENTITY, "clips_per_second"),
    "gpu_sweep": ("measurements", IDENTITY, "clips_per_second"),
    "throughput": ("measurements", (*_ENGINE, "workers", "batch"), "files_per_second"),
    "formats": ("measurements", (*_ENGINE, "format", "workers", "batch"), "files_per_second"),
    "resume": ("steps", ("bundle", "backend", "step", "files"), None),
    "peers": ("candidates", ("label", "device", "target", "batch"), "clips_per_second"),
    "precisions": ("candidates", ("label", "device", "target", "batch"), "clips_per_second"),
    "end_to_end": ("candidates", ("label", "device", "batch", "files"), "files_per_second"),
    "startup": ("commands", ("command",), None),
    "training": ("branches", ("size", "branch", "device", "batch"), "clips_per_second"),
}
"""Kind → where its rows are, which columns identify one, and its rate (None: the median time is compared)."""


def document(kind: str, environment: dict[str, Any], **content: Any) -> Document:
    """A result as plain JSON types: its kind and environment, then what the command found; call it right after."""
    head = {"schema_version": SCHEMA_VERSION, "kind": kind, "environment": with_clocks_at_end(environment)}
    return {**head, **_plain(content)}


def write(result: Document, path: Path) -> None:
    """Write `result` as JSON, messages without this machine's folders; OutputError if it cannot be written."""
    kept = {name: value if name == "environment" else _shareable(value) for name, value in result.items()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)


def read(path: Path) -> Document:
    """Read a result; InputError if the file is not one, or one of another schema."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error.strerror) from error
    result = parse(raw, str(path), InputError)
    if not isinstance(result, dict) or result.get("kind") not in KINDS:
        raise InputError(f"{path} is not a benchmark result", expected=f"a kind of {', '.join(KINDS)}")
    if result.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} has another schema", got=result.get("schema_version"), expected=SCHEMA_VERSION)
    return result


def read_all(paths: Sequence[Path]) -> list[tuple[str, Document]]:
    """(path, result) of every result in `paths`, which are files or folders; those of a folder in order of name.

    Raises:
        InputError: a file is not a result, or there is none.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise InputError("there are no results to show", got=", ".join(map(str, paths)), expected="*.json")
    return [(str(file), read(file)) for file in files]


def warnings_of(result: Document) -> list[str]:
    """Every warning of a result with the row that it is about, and why backends were left out."""
    found = []
    for row in (row for name in _LISTS for row in result.get(name, [])):
        about = ", ".join(NUMBERS.get(key, "{}").format(row[key]) for key in _ABOUT if key in row)
        found += [f"{about}: {warning}" for warning in row["warnings"]]
    return [*found, *(f"left out: {name}: {reason}" for name, reason in result.get("absent", {}).items())]


def write_parquet(result: Document, path: Path) -> None:
    """Write the raw timings, one row per value: the columns of `IDENTITY`, `stage`, `turn`, `seconds`.

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
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    # Nanoseconds are below what any of these clocks resolves.
    return round(value, 9) if isinstance(value, float) else value


def _shareable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shareable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shareable(inner) for inner in value]
    return shareable_text(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Ratio:
    """One row that both results have."""

    key: str
    first: float
    second: float
    unit: str
    ratio: float
    """second / first."""


@dataclass(frozen=True)
class Comparison:
    """Ratios, and the rows that only one of the two has."""

    ratios: list[Ratio]
    only_first: list[str]
    only_second: list[str]


def compare(first: Document, second: Document) -> Comparison:
    """Match the rows of two results of one kind.

    The bundle's hash does not count: one compares a measurement of a bundle with the same one after retraining.

    Raises:
        InputError: the results are of different kinds, or of a kind without rows, or share no row.
    """
    if first["kind"] != second["kind"]:
        raise InputError("the two results are of different kinds", got=f"{first['kind']} and {second['kind']}")
    if first["kind"] not in _ROWS:
        raise InputError(f"results of kind {first['kind']} are not compared", expected=", ".join(_ROWS))
    left, right = _rows(first), _rows(second)
    unit = "s" if _ROWS[first["kind"]][2] is None else "clips/s"
    both = [key for key in left if key in right]
    if not both:
        raise InputError("the two results share no row", got=f"{sorted(left)} and {sorted(right)}")
    ratios = [Ratio(key, left[key], right[key], unit, right[key] / left[key]) for key in both]
    return Comparison(ratios, [key for key in left if key not in right], [key for key in right if key not in left])


def _rows(result: Document) -> dict[str, float]:
    name, columns, rate = _ROWS[result["kind"]]
    rows = {}
    for row in result[name]:
        shown = {key: str(row[key]) for key in columns if row.get(key) is not None}
        if "bundle" in shown:
            shown["bundle"] = shown["bundle"].rpartition("-")[0]
        key = ", ".join(NUMBERS.get(key, "{}").format(value) for key, value in shown.items())
        rows[key] = row[rate] if rate else row["seconds"]["median"]
    return rows
