"""Times as tables have them, in seconds: numbers, pandas' timedeltas, clocks; and the stretches that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ser_batch.recordings.text_tables import Problems

Seconds = npt.NDArray[np.float64]
NONE = frozenset({"", "nat", "nan", "none", "null", "na", "n/a", "-", "<na>"})
"""Cells that say nothing, in lower case."""
UNITS = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **{"us": 1e-6, "ns": 1e-9},
    **dict.fromkeys(("day", "days"), 86400.0),
}
NUMBER = re.compile(r"([+-]?\d+(?:[.,]\d+)?|[+-]?[.,]\d+)\s*([a-z]*)")
CLOCK = re.compile(r"(?:(-?\d+) days?,?\s*)?([+-]?)(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")
YEAR = 366 * 86400.0
EXPECTED = "seconds, or a time like 00:01:02.5"


def seconds(column: pa.ChunkedArray) -> tuple[Seconds, Problems]:
    """The times of a column in seconds, NaN where it says none; and the rows whose cell is no time."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _floats(column), {}
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        per_second = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return _floats(column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())) / per_second, {}
    times, problems = np.full(len(column), np.nan), Problems()
    for row, value in enumerate(column.to_pylist()):
        try:
            times[row] = _number(value)
        except ValueError:
            problems[row] = f"got {str(value)!r}; expected {EXPECTED}"
    return times, problems


def are_seconds(column: pa.ChunkedArray, unit: float) -> bool:
    """Whether a column holds numbers, or timedeltas, that may be times in a recording: no clocks, no dates.

    A clock (`14:03:22`) may be the time of day at which a call began; what is longer than a year counts from 1970.

    Args:
        unit: of its numbers in seconds.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if any(":" in (value or "") and "day" not in value for value in column.to_pylist()):
            return False
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_duration(kind)):
        return False
    times, problems = seconds(column)
    return not problems and not np.isnan(times).all() and bool(np.nanmax(times) * unit < YEAR)


def _floats(column: pa.ChunkedArray) -> Seconds:
    values: Seconds = column.cast(pa.float64(), safe=False).to_numpy()
    return np.array(values, dtype=np.float64)


def _number(value: Any) -> float:
    """A cell in seconds; ValueError if it is no time."""
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except TypeError:
        raise ValueError("not a time") from None
    except ValueError:
        return _clock(value)


def _clock(text: str) -> float:
    text = text.strip().lower()
    if text in NONE:
        return math.nan
    if match := NUMBER.fullmatch(text):
        number, unit = match.groups()
        if unit not in UNITS:
            raise ValueError("not a unit of time")
        return float(number.replace(",", ".")) * UNITS[unit]
    if match := CLOCK.fullmatch(text):
        days, sign, hours, minutes, rest = match.groups()
        clock = int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
        return int(days or 0) * 86400 + (-clock if sign == "-" else clock)
    raise ValueError("not a time")


def stretches(times: Mapping[str, pa.ChunkedArray], rows: int) -> tuple[Seconds, Seconds, Problems]:
    """Start and end of each recording in its file, in seconds; NaN both where it is all of the file.

    Without an end, a stretch goes to the end of the file (infinity).

    Args:
        times: columns `start`, `end` and `duration`, those that there are.

    Returns:
        starts (rows,), ends (rows,), and the rows whose stretch is none.
    """
    given: dict[str, Seconds] = {}
    problems = Problems()
    for name in ("start", "end", "duration"):
        given[name], wrong = seconds(times[name]) if name in times else (np.full(rows, np.nan), Problems())
        for row, reason in wrong.items():
            problems.setdefault(row, f"has no proper {name}; {reason}")
    start, end, duration = given["start"], given["end"], given["duration"]
    begin = np.where(np.isnan(start), 0.0, start)
    end = np.where(np.isnan(end), begin + duration, end)
    end = np.where(np.isnan(end), np.inf, end)
    whole = np.isposinf(end) & (begin == 0)
    for row in np.flatnonzero(~((begin >= 0) & (begin < end) & np.isfinite(begin))).tolist():
        length = f" of length 0: start {begin[row]:g}," if begin[row] == end[row] else f": start {begin[row]:g},"
        problems.setdefault(
            row, f"has no proper stretch; got one{length} end {end[row]:g}; expected 0 ≤ start < end, in seconds"
        )
    return np.where(whole, np.nan, begin), np.where(whole, np.nan, end), problems
