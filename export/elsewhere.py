"""Figures on other speech than the run's own corpus, as `ser-batch evaluate --json` writes them, for the model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_batch.errors import InputError

SHOWN = ("bundle_id", "backend", "precision")
FIGURES = ("clips", "accuracy", "accuracy_interval", "ua", "ua_interval")
"""What the card shows of each output."""


def read_evaluation(path: Path, labels: Sequence[str], branches: Sequence[str]) -> dict[str, Any]:
    """An evaluation of a model with these labels and branches.

    Raises:
        InputError: the file cannot be read, is no evaluation, or is one of another model.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        origin = found["provenance"]
        theirs = {name: list(json.loads(origin[name])) for name in ("labels", "branches")}
        outputs = set(found["models"])
        missing = {"truth"} - {*found} | {*SHOWN} - {*origin}
        missing |= {name for model in found["models"].values() for name in FIGURES if name not in model}
        if missing:
            raise KeyError(*sorted(missing))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as an evaluation",
            got=error,
            expected="what ser-batch evaluate --json wrote",
        ) from error
    ours = {"labels": list(labels), "branches": list(branches)}
    if theirs != ours or outputs != {"fused", *branches}:
        raise InputError(f"{path} is an evaluation of another model", got=theirs, expected=ours)
    return found
