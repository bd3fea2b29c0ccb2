"""The rows of the report's table, compact: the page draws only those that are in sight, and plays one at a time."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.evaluation.predictions import PredictionTable
from ser_batch.output.schema import STATUSES
from ser_batch.report.predicted import column, reasons_of, said

ROWS = 100_000
"""Rows in the table; the figures are of all."""
EMBEDDED_BYTES = 12 * 2**20
"""Audio inside a page at most, as it is on the disk."""
MEDIA = {
    **{".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg"},
    **{".m4a": "audio/mp4", ".mp4": "audio/mp4", ".aac": "audio/aac", ".webm": "audio/webm"},
}
"""What browsers play, by the ending of the name."""
SILENCE = -999
"""Stands for a level of minus infinity, which JSON lacks."""


@dataclass(frozen=True)
class Audio:
    """Where the page finds the recordings."""

    root: str | None = None
    """Relative URL, with a slash at its end, of the folder that the names start in; None: there are no players."""
    embedded: dict[str, str] | None = None
    """Name -> data URL."""


def linked(folder: Path | None, page: Path, table: PredictionTable, embed: int) -> Audio:
    """Links to recordings below `folder`, relative to the page; `embed` of them are inside it.

    Embedded are the surest rows of each label and the least sure, in turn, as far as `EMBEDDED_BYTES` go.

    Raises:
        InputError: `folder` is none, or holds not one of the first recordings.
    """
    if folder is None:
        return Audio()
    names = table.files[:100]
    if not folder.is_dir() or not any((folder / name).is_file() for name in names):
        raise InputError(
            f"{folder} does not hold the recordings",
            expected=f"the folder that names like {names[0]!r} start in" if names else "a folder",
        )
    relative = Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()
    root = quote(relative) + "/"
    return Audio(root, _embedded(folder, table, embed) if embed else {})


def _embedded(folder: Path, table: PredictionTable, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    size = 0
    for row in examples(table):
        name = table.files[row]
        path = folder / name
        kind = MEDIA.get(path.suffix.lower())
        if len(found) == count:
            break
        if name in found or kind is None or not path.is_file() or size + path.stat().st_size > EMBEDDED_BYTES:
            continue
        size += path.stat().st_size
        found[name] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return found


def examples(table: PredictionTable) -> list[int]:
    """Rows worth hearing: of each label in turn the surest, then the least sure, and so on."""
    labels, scores = said(table), np.nan_to_num(table.models[FUSED].max(axis=1))
    orders = []
    for label in range(len(table.labels)):
        here = np.flatnonzero(labels == label)
        sure = here[np.argsort(-scores[here], kind="stable")].tolist()
        orders.append([row for pair in zip(sure, reversed(sure), strict=True) for row in pair])
    turns = max(map(len, orders), default=0)
    every = [order[turn] for turn in range(turns) for order in orders if turn < len(order)]
    return list(dict.fromkeys(every))


def rows(
    table: PredictionTable, audio: Audio, truth: Sequence[str | None] | None, other: Sequence[str] | None
) -> dict[str, Any]:
    """The table as plain JSON types, column by column; words are numbers of a list, and absent cells are null or -1.

    Args:
        truth: (N,) what is known of each row; None: nothing.
        other: (N,) what the second table said; empty where it has no such row.
    """
    count = min(len(table.files), ROWS)
    labels, scores = said(table)[:count], table.models[FUSED][:count].max(axis=1)
    reasons, reason_numbers = _numbered(reasons_of(table)[:count])
    own = table.others.column_names
    data: dict[str, Any] = {
        "total": len(table.files),
        "labels": table.labels,
        "statuses": STATUSES,
        "reasons": reasons,
        "file": table.files[:count],
        "status": [STATUSES.index(status) if status in STATUSES else -1 for status in table.statuses[:count]],
        "label": labels.tolist(),
        "score": _rounded(scores, 3),
        "reason": reason_numbers,
        "audio": {"root": audio.root, "embedded": audio.embedded or {}, "endings": [*MEDIA]},
    }
    for name, digits in (("start", 2), ("end", 2), ("duration", 2), ("level", 1), ("bandwidth", 0), ("channel", 0)):
        values = column(table, name)[:count]
        # Of recordings that are heard whole, start and end say nothing.
        told = name not in ("start", "end") or "given_start" in own or has_windows(table)
        if name in own and told and not np.isnan(values).all():
            data[name] = _rounded(values, digits)
    if truth is not None:
        data["truth"] = [table.labels.index(label) if label in table.labels else -1 for label in truth[:count]]
    if other is not None:
        data["other_labels"], data["other"] = _numbered(other[:count])
    if has_windows(table):
        data["p"] = _bytes(table.models[FUSED][:count])
    return data


def has_windows(table: PredictionTable) -> bool:
    """Whether a recording has several rows, of which a timeline can be drawn."""
    return "start" in table.others.column_names and len(set(table.files[:ROWS])) < len(table.files[:ROWS])


def _numbered(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Different words, the empty one first, and the number of each."""
    numbers = {"": 0}
    found = [numbers.setdefault(word, len(numbers)) for word in words]
    return list(numbers), found


def _rounded(values: npt.NDArray[np.floating], digits: int) -> list[float | int | None]:
    def plain(value: float) -> float | int | None:
        if math.isnan(value):
            return None
        if math.isinf(value):
            return SILENCE
        return round(value, digits) if digits else round(value)

    return [plain(value) for value in values.tolist()]


def _bytes(probabilities: npt.NDArray[np.float64]) -> str:
    """Probabilities (N, C) as a byte each, 255 being 1, in base64; 0 where a row was not scored."""
    return base64.b64encode(np.rint(255 * np.nan_to_num(probabilities)).astype(np.uint8).tobytes()).decode()
