"""How common each label is in an archive, as its owner states it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import LabelMap
from ser_batch.recordings.reader import find_column, read_table, shown
from ser_batch.text import terminal_safe

ROUNDING = 0.015
"""By so much stated shares may miss 1: 0.33 three times is meant to be all."""
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]
EQUAL, COUNTED = "equal", "labels"
"""Words in place of numbers: all labels alike; as counted among the labelled rows."""
EXPECTED = f"neutral=0.7,angry=0.1 (the other labels share the rest), {EQUAL}, {COUNTED}, or a table (label, share)"


def parse_shares(text: str, meaning: LabelMap, truth: Indices | None = None) -> Floats:
    """The shares (C,) that `--shares` states, in the order of the model's labels; they sum to 1.

    Labels that are not named share what is left equally; `calm=0` alone says that there is no calm, and all else is
    equally common.

    Args:
        text: `equal`; `neutral=0.7,calm=0`; a table with the columns label and share or count; or `labels`: as counted
            among the labelled rows, `labels,calm=0` without calm.
        meaning: of labels that are written in other words.
        truth: (N,) of the labelled rows; None: there are none.

    Raises:
        InputError: it is none of these, or the shares cannot be.
    """
    if Path(text).is_file():
        return _complete(_read(text), meaning, text)
    first, *others = [part.strip() for part in text.split(",")]
    if first == COUNTED:
        absent = _complete(dict(map(_pair, others)), meaning, "--shares") == 0
        if truth is None:
            raise InputError("--shares labels counts labelled rows, and none are given", remedy="Give --labels, too.")
        return counted_shares(truth, ~absent)
    return _complete(dict(map(_pair, others if first == EQUAL else [first, *others])), meaning, "--shares")


def counted_shares(truth: Indices, may_occur: npt.NDArray[np.bool_]) -> Floats:
    """The shares (C,) of labelled rows, one row added for each label that may occur: none of them is impossible."""
    counts = np.where(may_occur, np.bincount(truth, minlength=len(may_occur)) + 1, 0)
    return np.asarray(counts / counts.sum())


def _pair(part: str) -> tuple[str, float]:
    label, _, number = (piece.strip() for piece in part.partition("="))
    try:
        return label, float(number)
    except ValueError as error:
        raise InputError(f"--shares is neither shares nor a file: {part!r}", expected=EXPECTED) from error


def _read(path: str) -> dict[str, float]:
    """Label -> share of a table; counts are divided by their sum."""
    table = read_table(path)
    label, share, count = (find_column(table, [name]) for name in ("label", "share", "count"))
    numbers = share or count
    if label is None or numbers is None:
        raise InputError(
            f"{path} is no table of shares",
            got=f"columns {shown(table.column_names)}",
            expected="label, and share or count",
        )
    labels = [str(value or "").strip() for value in table[label].to_pylist()]
    try:
        values = [float(value) for value in table[numbers].to_pylist()]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a {numbers} that is no number", got=error) from error
    if len(set(labels)) < len(labels) or not all(labels):
        raise InputError(f"{path} needs one row for each label", got=", ".join(labels))
    total = 1.0 if share else sum(values)
    return {name: value / total if total else math.nan for name, value in zip(labels, values, strict=True)}


def _complete(stated: dict[str, float], meaning: LabelMap, where: str) -> Floats:
    """Every label's share: those not stated have equal parts of the rest."""
    shares = dict[str, float]()
    for name, share in stated.items():
        label = meaning(name)
        if label is None or not 0 <= share <= 1:
            raise InputError(
                f"{where} states a share that cannot be: {terminal_safe(name)}={share:g}",
                expected=f"0 to 1, for one of {', '.join(meaning.labels)}",
            )
        shares[label] = shares.get(label, 0.0) + share
    rest = [label for label in meaning.labels if label not in shares]
    left = round(1 - sum(shares.values()), 9)
    if left < -ROUNDING or (not rest and left > ROUNDING):
        raise InputError(f"the shares of {where} do not sum to 1", got=f"{1 - left:g}")
    found = np.array([shares.get(label, max(left, 0.0) / max(len(rest), 1)) for label in meaning.labels])
    if (found > 0).sum() < 2:
        raise InputError(f"{where} leaves fewer than two labels", expected="two or more with a share above 0")
    return np.asarray(found / found.sum())
