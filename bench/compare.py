"""`bench compare`: what changed from one result to another, as ratios of the second to the first."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import IDENTITY, NUMBERS, Document
from ser_batch.errors import InputError

_ENGINE = ("bundle", "backend", "precision", "device")
_ROWS = {
    "latency": ("measurements", IDENTITY, "clips_per_second"),
    "gpu_sweep": ("measurements", IDENTITY, "clips_per_second"),
    "throughput": ("measurements", (*_ENGINE, "workers", "batch"), "files_per_second"),
    "formats": ("measurements", (*_ENGINE, "format", "workers", "batch"), "files_per_second"),
    "resume": ("steps", ("bundle", "backend", "step", "files"), None),
    "peers": ("candidates", ("label", "device", "target", "batch"), "clips_per_second"),
    "end_to_end": ("candidates", ("label", "device", "batch", "files"), "files_per_second"),
    "startup": ("commands", ("command",), None),
    "training": ("branches", ("size", "branch", "device", "batch"), "clips_per_second"),
}
"""Kind → where its rows are, which columns identify one, and its rate (None: the median time is compared)."""


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
