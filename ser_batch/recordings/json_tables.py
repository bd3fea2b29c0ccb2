"""Tables in JSON, as scripts, pandas and datasets write them; columns of Python values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from ser_batch.arrow import strings
from ser_batch.recordings.text_tables import Problems


def rows_in(value: Any, known: Callable[[str], bool]) -> list[Any]:
    """The objects of a JSON document.

    It is a list (of texts, which are paths), a list under a name, columns of lists or, as pandas has it, of objects.

    Args:
        known: whether a column of that name is looked for.
    """
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [{"path": each} for each in value]
    if not isinstance(value, dict):
        return value if isinstance(value, list) else [value]
    lists = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(lists) == 1 and not any(map(known, value)):
        return lists[0]
    columns = {
        name: each if isinstance(each, list) else list(each.values())
        for name, each in value.items()
        if isinstance(each, list | dict)
    }
    if len(columns) == len(value) and len({len(each) for each in columns.values()}) == 1:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [value]


def json_lines(text: str) -> tuple[list[Any], Problems]:
    """A JSON value per line; a line that is none is a problem."""
    values: list[Any] = []
    problems = Problems()
    for line in filter(str.strip, text.splitlines()):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            problems[len(values)] = f"is no JSON; got {error}"
            values.append({})
    if len(problems) == len(values):
        raise ValueError(next(iter(problems.values()), "is empty; expected an object per line"))
    return values, problems


def from_objects(values: list[Any], problems: Problems) -> tuple[pa.Table, Problems]:
    """A table with a row for each JSON object; a column whose values are of several types becomes text."""
    for row, value in enumerate(values):
        if not isinstance(value, dict):
            problems.setdefault(row, f"is no JSON object; got {str(value)[:100]}")
    rows = [value if isinstance(value, dict) else {} for value in values]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: column([row.get(name) for row in rows]) for name in names}), problems


def column(values: list[Any]) -> pa.Array:
    """Python values as a column: of their type if they have one, else as text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        texts = [as_text(value) for value in values]
        # Half of an emoji, where a text was cut off, is no character.
        return strings([text and text.encode("utf-8", "replace").decode() for text in texts])


def as_text(value: Any) -> str | None:
    """A value of another type as text; None: there is none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else str(value)
