"""How common each label is in an archive, as its owner states it, and the bias under which a model agrees.

With logits z = log p and q = softmax(z + b), the bias b sought makes mean(q) = s. It is the minimum of the convex
mean(logsumexp(z + b)) - s·b: the gradient is mean(q) - s, the Hessian mean(diag(q) - q qᵀ). The correction of
posteriors to other priors by factors on each class is that of Saerens et al., Adjusting the Outputs of a Classifier to
New a Priori Probabilities, Neural Computation 14 (2002); here the factors are found from the shares, so that a model
that says one label too often everywhere is put right, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.errors import InputError
from ser_batch.evaluation.label_map import LabelMap
from ser_batch.evaluation.metrics import SMALLEST
from ser_batch.recordings.reader import find_column, read_table, shown
from ser_batch.text import terminal_safe

ROUNDING = 0.015
"""By so much stated shares may miss 1: 0.33 three times is meant to be all."""
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]
EQUAL, COUNTED = "equal", "labels"
"""Words in place of numbers: all labels alike; as counted among the labelled rows."""
EXPECTED = f"neutral=0.7,angry=0.1 (the other labels share the rest), {EQUAL}, {COUNTED}, or a table (label, share)"
TOLERANCE = 1e-9
"""Largest difference of a mean probability from its share."""
STEPS = 200
ROWS = 1 << 16
"""Rows that are in logarithms at a time."""


def parse_shares(
    text: str, meaning: LabelMap, truth: Indices | None = None, may_occur: npt.NDArray[np.bool_] | None = None
) -> Floats:
    """The shares (C,) that `--shares` states, in the order of the model's labels; they sum to 1.

    Labels that are not named share what is left equally; `calm=0` alone says that there is no calm, and all else is
    equally common.

    Args:
        text: `equal`; `neutral=0.7,calm=0`; a table with the columns label and share or count; or `labels`: as counted
            among the labelled rows, `labels,calm=0` without calm.
        meaning: of labels that are written in other words.
        truth: (N,) of the labelled rows; None: there are none.
        may_occur: (C,) False for labels whose share is 0, whether stated or not; None: all may occur.

    Raises:
        InputError: it is none of these, or the shares cannot be.
    """
    absent = () if may_occur is None else tuple(itertools.compress(meaning.labels, ~may_occur))
    if Path(text).is_file():
        return _complete(_read(text), meaning, text, absent)
    first, *others = [part.strip() for part in text.split(",")]
    if first == COUNTED:
        never = _complete(dict(map(_pair, others)), meaning, "--shares", absent) == 0
        if truth is None:
            raise InputError("--shares labels counts labelled rows, and none are given", remedy="Give --labels, too.")
        return counted_shares(truth, ~never)
    pairs = others if first == EQUAL else [first, *others]
    return _complete(dict(map(_pair, pairs)), meaning, "--shares", absent)


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


def _complete(stated: dict[str, float], meaning: LabelMap, where: str, absent: Sequence[str] = ()) -> Floats:
    """Every label's share: 0 for the `absent`, and for the others that are not stated equal parts of the rest."""
    shares = dict.fromkeys(absent, 0.0)
    for name, share in stated.items():
        label = meaning(name)
        if label is None or not 0 <= share <= 1:
            raise InputError(
                f"{where} states a share that cannot be: {terminal_safe(name)}={share:g}",
                expected=f"0 to 1, for one of {', '.join(meaning.labels)}",
            )
        if share and label in absent:
            raise InputError(
                f"{where} gives a share to a label that --among leaves out",
                got=f"{terminal_safe(name)}={share:g}",
                remedy="Name it in --among, too, or state no share of it.",
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


def biased(probabilities: npt.NDArray[np.floating], bias: Floats, temperature: float = 1.0) -> Floats:
    """softmax(log p / temperature + bias).

    Args:
        probabilities: (N, C).
        bias: (C,) or (N, C); -inf for a label that is no answer.
        temperature: above 0; 1 changes nothing.

    Returns:
        (N, C), rows that sum to 1.
    """
    logits = np.log(np.maximum(probabilities, SMALLEST).astype(np.float64)) / temperature + bias
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def bias_for_shares(probabilities: npt.NDArray[np.floating], shares: Floats) -> Floats:
    """The bias (C,) under which the mean of the rows of `probabilities` (N, C) is `shares` (C,).

    It is 0 on average over the labels that have a share; a label of share 0 has -inf. Newton's method, each step
    halved until the objective falls.

    Raises:
        InputError: there are no rows.
    """
    if not len(probabilities):
        raise InputError("there are no scored rows to find a bias from")
    held = shares > 0
    bias = np.full(len(shares), -np.inf)
    bias[held] = _newton(np.ascontiguousarray(probabilities[:, held]), shares[held] / shares[held].sum())
    return bias


def _newton(probabilities: npt.NDArray[np.floating], shares: Floats) -> Floats:
    # A first guess that is right where rows are alike.
    bias = np.log(shares) - np.log(np.maximum(probabilities.mean(axis=0, dtype=np.float64), SMALLEST))
    value, gradient, hessian = _objective(probabilities, shares, bias)
    for _ in range(STEPS):
        if np.abs(gradient).max() <= TOLERANCE:
            break
        # The objective is flat along (1, …, 1); near-certain rows make it flat elsewhere, too.
        ridge = 1e-12 + 1e-9 * np.trace(hessian)
        step = np.linalg.solve(hessian + ridge * np.eye(len(bias)) + 1 / len(bias), -gradient)
        step *= min(1.0, 8.0 / max(np.abs(step).max(), SMALLEST))
        for _ in range(40):
            found = _objective(probabilities, shares, bias + step)
            if found[0] <= value + 1e-4 * (gradient @ step) or np.abs(step).max() < 1e-12:
                break
            step /= 2
        bias = bias + step
        value, gradient, hessian = found
    return np.asarray(bias - bias.mean())


def _objective(
    probabilities: npt.NDArray[np.floating], shares: Floats, bias: Floats
) -> tuple[float, Floats, npt.NDArray[np.float64]]:
    """The convex objective, its gradient (C,) and its Hessian (C, C)."""
    rows, total = len(probabilities), 0.0
    mean, outer = np.zeros(len(shares)), np.zeros((len(shares), len(shares)))
    for start in range(0, rows, ROWS):
        logits = np.log(np.maximum(probabilities[start : start + ROWS], SMALLEST).astype(np.float64)) + bias
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        sums = powers.sum(axis=1, keepdims=True)
        total += float((highest + np.log(sums)).sum())
        powers /= sums
        mean += powers.sum(axis=0)
        outer += powers.T @ powers
    mean /= rows
    return total / rows - float(shares @ bias), mean - shares, np.diag(mean) - outer / rows
