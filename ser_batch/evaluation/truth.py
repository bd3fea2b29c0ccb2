"""The true labels: from RAVDESS names or a labelled table, and which prediction each of them belongs to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ser_batch.errors import InputError
from ser_batch.evaluation import ravdess
from ser_batch.recordings.reader import PATHS, read_table

RAVDESS = "ravdess"
"""In place of a table: the label is in the recording's name."""
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


def match(files: Sequence[str], wanted: Sequence[str]) -> Matching:
    """Match recordings with names by relative path, else by what is unique on both sides: base name, or base name
    without suffix, for the same recording in another format.
    """
    exact = {_normal(name): name for name in wanted}
    alike = [(key, Counter(map(key, files)), _by(key, wanted)) for key in (_base, _stem)]
    names: list[str | None] = []
    by_base_name, ambiguous = set(), set()
    for index, file in enumerate(files):
        name = exact.get(_normal(file))
        if name is None:
            meant = next(
                ((here[key(file)], there[key(file)]) for key, here, there in alike if key(file) in there), None
            )
            if meant and meant[0] == len(meant[1]) == 1:
                name = meant[1][0]
                by_base_name.add(index)
            elif meant:
                ambiguous.add(index)
        names.append(name)
    found = set(names)
    missing = tuple(name for name in wanted if name not in found)
    return Matching(tuple(names), frozenset(by_base_name), frozenset(ambiguous), missing)


def _normal(name: str) -> str:
    return str(PurePosixPath(name))  # without "./" and doubled slashes


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _by(key: Callable[[str], str], names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


def ravdess_labels(files: Sequence[str]) -> dict[str, str]:
    """Label of every recording whose name is that of a RAVDESS speech clip; the others are left out."""
    found = {}
    for file in files:
        try:
            found[file] = ravdess.parse(file).label
        except InputError:
            continue
    return found


def read_labels(path: Path) -> dict[str, str]:
    """Recording -> label, of a table (see `recordings.table.read_table`) with columns `path` (or `file`) and `label`.

    Raises:
        InputError: the file is no such table, or holds a recording twice.
    """
    table = read_table(str(path))
    key = next((name for name in PATHS if name in table.column_names), None)
    if key is None or "label" not in table.column_names:
        raise InputError(
            f"{path} is no table of labels",
            got=f"columns {', '.join(table.column_names)}",
            expected="a column path (or file) and a column label",
        )
    found: dict[str, str] = {}
    for file, label in zip(table[key].to_pylist(), table["label"].to_pylist(), strict=True):
        if not file or label is None:
            raise InputError(f"{path} has a row without {key} or label", got=f"{file!r}, {label!r}")
        if file in found:
            raise InputError(f"{path} holds {file} twice")
        found[file] = label
    return found


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
