"""The true labels: from names or a labelled table, and which prediction each of them belongs to."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import CORPORA
from ser_batch.evaluation.predictions import is_predictions
from ser_batch.recordings.columns import names_and_ids
from ser_batch.recordings.reader import find_column, read_table, shown

RAVDESS = "ravdess"
"""In place of a table: the label is in the recording's name."""
LABEL_COLUMNS = ("label", "emotion", "emo", "emoclass")
"""Columns that state the label, the preferred one first."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Matching:
    """Which of the wanted names each recording is."""

    names: tuple[str | None, ...]
    """For each recording, in order; None where it is none of them."""
    by_base_name: frozenset[int]
    """Recordings (by index) matched by base name, with its suffix or without, since no relative path was equal."""
    ambiguous: frozenset[int]
    """Recordings (by index) left unmatched because their base name stands for several."""
    missing: tuple[str, ...]
    """Wanted names that no recording is."""


def match(files: Sequence[str], wanted: Sequence[str], *, ids: bool = False) -> Matching:
    """Match recordings with names by relative path, else by what is unique on both sides: base name, or base name
    without suffix, for the same recording in another format, or that without regard to case.

    Args:
        ids: they are ids, of which only what stands before the last slash may differ.
    """
    exact = {_normal(name): name for name in wanted}
    names = [exact.get(_normal(file)) for file in files]
    by_base_name, ambiguous = set(), set()
    for key in (_base,) if ids else (_base, _stem, _folded):
        left = [row for row, name in enumerate(names) if name is None and row not in ambiguous]
        there = _by(key, wanted) if left else {}
        here = Counter(own for own in map(key, files) if own in there) if there else {}
        for row in left:
            own = key(files[row])
            if own not in there:
                continue
            if here[own] == len(there[own]) == 1:
                names[row] = there[own][0]
                by_base_name.add(row)
            else:
                ambiguous.add(row)
    found = set(names)
    missing = tuple(name for name in wanted if name not in found)
    return Matching(tuple(names), frozenset(by_base_name), frozenset(ambiguous), missing)


def _normal(name: str) -> str:
    # Without "./" and doubled slashes, and as other systems write it. Most names are so: of a million, it shows.
    name = name.replace("\\", "/")
    if "//" in name or "./" in name or name.endswith(("/", "/.")) or not name:
        name = str(PurePosixPath(name))
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _base(name: str) -> str:
    return _normal(name).rpartition("/")[2]


def _stem(name: str) -> str:
    base = _base(name)
    dot = base.rfind(".")
    return base[:dot] if 0 < dot < len(base) - 1 else base


def _folded(name: str) -> str:
    return _stem(name.strip()).casefold()


def _by(key: Callable[[str], str], names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


def labels_in_names(files: Sequence[str], corpus: str) -> dict[str, str]:
    """Label of every recording whose name is one of the corpus (see `label_map.CORPORA`); the others are left out."""
    found = ((file, CORPORA[corpus].label(file)) for file in files)
    return {file: label for file, label in found if label is not None}


def ravdess_labels(files: Sequence[str]) -> dict[str, str]:
    """Label of every recording whose name is that of a RAVDESS speech clip; the others are left out."""
    return labels_in_names(files, RAVDESS)


@dataclass(frozen=True)
class Truth:
    """What is stated of recordings: their label, and the group that they belong to."""

    labels: dict[str, str | None]
    """By path or by id; None: the cell is empty."""
    groups: dict[str, str | None]
    """Empty where no group was asked for."""
    by_id: bool
    """Whether recordings are known by their ids."""
    nameless: int = 0
    """Rows that name no recording."""


def read_labels(path: Path) -> dict[str, str]:
    """Recording -> label, of a table (see `recordings.reader`) with a column of paths and a column `label`.

    Raises:
        InputError: the file is no such table, or holds a recording twice.
    """
    truth = read_truth(str(path), by_id=False)
    return {file: label for file, label in truth.labels.items() if label is not None}


def read_truth(
    path: str, *, by_id: bool, column: str | None = None, group: str | None = None, root: str | None = None
) -> Truth:
    """The labels in a table, whatever its kind: see `recordings.reader`.

    Args:
        by_id: whether the predictions have ids; they are used if this table has them, or stretches that make them.
        column: that holds the labels; None: `label`, `emotion` or the like.
        group: column that groups recordings.
        root: see `read_table`.

    Raises:
        InputError: the file is no such table, is a table of predictions, or states two labels of a recording.
    """
    table = read_table(path, root)
    given = find_column(table, [column] if column else LABEL_COLUMNS)
    if is_predictions(table) and given in (None, "label"):
        raise InputError(
            f"{path} is a table of predictions: its labels are what a model said, and no truth",
            expected="a table of labels, or a column that was handed through: --label-column given_label",
        )
    names, ids = names_and_ids(path, table)
    if given is None or not (names or ids):
        raise InputError(
            f"{path} is no table of labels",
            got=f"columns {shown(table.column_names)}",
            expected=f"a column path (or file, or id) and a column {column or 'label'}",
        )
    used = ids if ids is not None and (by_id or names is None) else names
    labels, groups, nameless = dict[str, str | None](), dict[str, str | None](), 0
    members = texts(table, _column(path, table, group)) if group else [None] * len(table)
    for name, label, member in zip(used or [], texts(table, given), members, strict=True):
        if not name:
            nameless += 1
            continue
        if labels.setdefault(name, label) != label:
            raise InputError(f"{path} holds {name} twice", got=f"the labels {labels[name]} and {label}")
        groups[name] = member
    return Truth(labels, groups if group else {}, used is ids, nameless)


def _column(path: str, table: pa.Table, name: str) -> str:
    found = find_column(table, [name])
    if found is None:
        raise InputError(f"{path} has no column {name!r}", got=shown(table.column_names))
    return found


def texts(table: pa.Table, column: str) -> list[str | None]:
    """A column as text without blanks around it; None where a cell is empty."""
    values = table[column].to_pylist()
    cells = ["" if value is None else str(value).strip() for value in values]
    return [cell or None for cell in cells]


def read_part(path: Path, part: str) -> tuple[str, tuple[str, ...]]:
    """Name of the split in a run's split.json, and the recordings of its `part`."""
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        members = split[part]
        if not members or not all(isinstance(member, str) for member in members):
            raise ValueError(f"its part {part!r} is no list of recordings")
    except KeyError as error:
        raise InputError(f"{path} has no part {part!r}", expected=f"one of {', '.join(PARTS)}") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a split: {error}") from error
    return str(split.get("name", path.stem)), tuple(members)
