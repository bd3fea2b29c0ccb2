"""An adaptation as plain text: what was asked, what was found, what it changed."""

from __future__ import annotations

import numpy as np

from ser_batch.adaptation.adapt import ON_EQUAL
from ser_batch.adaptation.few_labels import BOTH, NOTHING, TEMPERATURE, Correction
from ser_batch.adaptation.table import Adapted
from ser_batch.text import aligned, terminal_safe

_KEPT = {
    NOTHING: "nothing of them is used: by cross-validation neither a temperature nor a bias would have helped",
    TEMPERATURE: "a temperature is used, and no bias: by cross-validation, one would not have helped",
    BOTH: "a temperature and a bias are used",
}


def format_adapted(adapted: Adapted, out: str) -> str:
    """A head, and a row of shares for each label."""
    fitted = adapted.fitted
    head = [("rows", f"{adapted.scored} scored, of {adapted.rows}; {adapted.changed} have another label now")]
    if fitted.shares is not None:
        decided = "as if all labels were equally common" if fitted.decide == ON_EQUAL else "by the stated shares"
        head.append(("decided", decided))
    if fitted.groups or fitted.small_groups:
        small = f"; {fitted.small_groups} are too small and take the archive's" if fitted.small_groups else ""
        head.append(("groups", f"{len(fitted.groups)} have a bias of their own{small}"))
    if fitted.correction:
        head += _labelled(fitted.correction)
    head.append(("output", out))
    columns = ("label", "said before", "mean p before", "share stated", "bias", "said after")
    rows = [
        (
            *(label, f"{adapted.said_before[i]:.1%}", f"{adapted.mean_before[i]:.1%}"),
            "–" if fitted.shares is None else f"{fitted.shares[i]:.1%}",
            f"{fitted.bias[i]:+.2f}" if np.isfinite(fitted.bias[i]) else "no answer",
            f"{adapted.said_after[i]:.1%}",
        )
        for i, label in enumerate(fitted.labels)
    ]
    lines = [f"{name:<9} {value}" for name, value in head]
    return "\n".join(terminal_safe(line) for line in [*lines, "", *aligned([columns, *rows]).split("\n")])


def _labelled(found: Correction) -> list[tuple[str, str]]:
    losses = f"loss {found.loss_before:.3f} before, {found.loss_after:.3f} after, cross-validated"
    temperature = "" if found.kept == NOTHING else f", temperature {found.temperature:.2f}"
    return [("labels", f"{found.rows} rows: {_KEPT[found.kept]}"), ("", f"{losses}{temperature}")]
