"""What `--data` names: a folder of RAVDESS, or a table of any other labelled corpus, as `ser-batch run` reads them.

A table has one row per recording. Its columns are `path` (relative to the table's folder, or absolute) and `label`, or
what `ser-batch run` and `evaluate` take for these (`file`, `emotion`, …);
where known `speaker`, `split` ("train", "validation" or "test"), `sentence` and `utterance` (what several takes of
the same thing share). Other columns are left alone.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ser_batch.errors import InputError, TrainingError
from ser_batch.evaluation.truth import LABEL_COLUMNS
from ser_batch.recordings.endings import is_table
from ser_batch.recordings.reader import PATHS, PROBLEM, find_column, read_table
from training.data import ravdess
from training.data.corpus import Corpus, Example
from training.data.splits import PARTS

REQUIRED, OPTIONAL = ("path", "label"), ("speaker", "split", "sentence", "utterance")


def load_corpus(data: Path, labels: tuple[str, ...] | None = None) -> Corpus:
    """The corpus in the RAVDESS folder or the table `data`; `labels` orders a table's classes.

    Raises TrainingError for a corpus that is not whole or not consistent, and for labels with RAVDESS, whose label
    set is fixed.
    """
    if data.is_file():
        return load_table(data, labels)
    if not data.is_dir():
        raise TrainingError(f"there is no {data}", expected="a RAVDESS folder, or a .csv or .parquet table")
    if labels is not None:
        raise TrainingError("labels can be chosen for a table only; RAVDESS has its own", got=", ".join(labels))
    return ravdess.load(data)


def load_table(
    path: Path,
    labels: tuple[str, ...] | None = None,
    *,
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Corpus:
    """The corpus that a table describes, in the table's order.

    Args:
        labels: the label set in the order of the classes; by default the labels that occur, sorted.
        root: folder of the table's paths; by default the table's own. A path of which only another format is there
            (x.wav, where x.opus is) means that one.
        columns: what the table calls path, label and so on, where it has names of its own.

    Raises:
        TrainingError: the table cannot be read, lacks a column or a value, lists a recording twice, has a label
            outside the set, a class without a recording, an unknown part, or a file that does not exist.
    """
    folder = path.parent if root is None else root
    rows = enumerate(read_rows(path, columns or {}), start=1)
    examples = _as_stored(tuple(_example(row, number, path) for number, row in rows), folder)
    _refuse_repeats(examples, path)
    found = tuple(sorted({example.label for example in examples}))
    name = path.name if path.stem == ravdess.NAME else path.stem  # a table is not the corpus of that name
    corpus = Corpus(name, folder, found if labels is None else labels, examples)
    corpus.check_files()
    return corpus


def states_split(corpus: Corpus) -> bool:
    """Whether the table itself says which part each recording belongs to."""
    return any(example.part is not None for example in corpus.examples)


def own_protocol(corpus: Corpus) -> str | None:
    """The protocol that a table asks for: the split that it states, or else one that keeps its speakers apart.

    None for RAVDESS, whose protocols are its own, and where some speakers are not stated.
    """
    if states_split(corpus):
        return "given"
    known = corpus.name != ravdess.NAME and all(example.speaker is not None for example in corpus.examples)
    return "speakers" if known and not corpus.sets else None


def read_rows(path: Path, called: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows as text, without empty values; TrainingError for a table without the required columns.

    Args:
        called: what the table calls a column, where it has a name of its own.
    """
    if not path.is_file() or not is_table(str(path)):
        raise TrainingError(f"{path} is not a table of recordings", expected="an existing table, .csv or .parquet say")
    try:
        table = read_table(str(path))
    except InputError as error:
        raise TrainingError(error.what, got=error.got, expected=error.expected, remedy=error.remedy) from error
    names = {name: (called[name],) if name in called else (name,) for name in (*REQUIRED, *OPTIONAL)}
    names |= {name: also for name, also in (("path", PATHS), ("label", LABEL_COLUMNS)) if name not in called}
    columns = {name: find_column(table, candidates) for name, candidates in names.items()}
    missing = [name for name in REQUIRED if columns[name] is None]
    if missing:
        raise TrainingError(
            f"{path} has no column {missing[0]}", got=", ".join(table.column_names), expected="path and label"
        )
    problems = table[PROBLEM].to_pylist() if PROBLEM in table.column_names else [None] * len(table)
    for number, problem in enumerate(problems, start=1):
        if problem:
            raise TrainingError(f"row {number} of {path} {problem}")
    known = {name: table[column].to_pylist() for name, column in columns.items() if column is not None}
    rows = ({name: values[row] for name, values in known.items()} for row in range(len(table)))
    return [{name: str(value).strip() for name, value in row.items() if value not in (None, "")} for row in rows]


def _example(row: dict[str, str], number: int, path: Path) -> Example:
    empty = [name for name in REQUIRED if not row.get(name)]
    if empty:
        raise TrainingError(f"row {number} of {path} has no {empty[0]}")
    part = row.get("split")
    if part is not None and part not in PARTS:
        raise TrainingError(f"split of row {number} of {path}", got=repr(part), expected=", ".join(PARTS))
    return Example(row["path"], row["label"], row.get("speaker"), row.get("sentence"), row.get("utterance"), part)


def _as_stored(examples: tuple[Example, ...], folder: Path) -> tuple[Example, ...]:
    """The examples, with the names of the files that stand for those that are not there."""
    if all((folder / example.file).is_file() for example in examples):
        return examples
    stored: dict[Path, str] = {}
    for path in folder.rglob("*"):
        stored.setdefault(path.relative_to(folder).with_suffix(""), path.relative_to(folder).as_posix())
    return tuple(
        e if (folder / e.file).is_file() else replace(e, file=stored.get(Path(e.file).with_suffix(""), e.file))
        for e in examples
    )


def _refuse_repeats(examples: tuple[Example, ...], path: Path) -> None:
    """The same recording twice could be trained on and tested; half a split column says nothing of the other half."""
    seen: dict[str, int] = {}
    for number, example in enumerate(examples, start=1):
        first = seen.setdefault(os.path.normpath(path.parent / example.file), number)
        if first != number:
            raise TrainingError(f"rows {first} and {number} of {path} are the same recording", got=example.file)
    bare = [number for number, example in enumerate(examples, start=1) if example.part is None]
    if bare and len(bare) < len(examples):
        raise TrainingError(f"row {bare[0]} of {path} has no split while others have")
