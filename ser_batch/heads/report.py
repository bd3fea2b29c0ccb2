"""What `ser-batch head` prints: how good the head is, beside what costs nothing."""

from __future__ import annotations

from ser_batch.bundle.bundle import Bundle
from ser_batch.evaluation.statistics import Interval
from ser_batch.heads.head import FittedHead
from ser_batch.text import aligned, terminal_safe


def format_head(fitted: FittedHead, base: Bundle) -> str:
    """Head lines, and a row for each answer; percentages with 95 % intervals."""
    found = fitted.evaluation
    apart = f"{fitted.groups} of column {fitted.by}" if fitted.by else "none known: rows are apart by chance"
    head = [
        ("base", base.id),
        ("rows", ", ".join(f"{label} {count}" for label, count in zip(fitted.labels, fitted.counts, strict=True))),
        *(("", f"{count} {reason}") for reason, count in fitted.left_out.items()),
        ("speakers", apart),
        ("folds", f"{fitted.folds}, penalty {fitted.penalty:.2g}"),
    ]
    rows = [
        ("", "UA", "accuracy"),
        ("head, cross-validated", _share(found.ua, found.ua_interval), f"{100 * found.accuracy:.2f}"),
        ("always the same label", f"{100 / len(fitted.labels):.2f}", f"{100 * fitted.majority:.2f}"),
    ]
    if fitted.default is not None:
        rows.append(("the base's own answer", _share(fitted.default.ua, fitted.default.interval), ""))
    text = "\n".join(f"{name:<9} {value}" for name, value in head) + "\n\n" + aligned(rows) + "\n" + _advice(fitted)
    return "\n".join(terminal_safe(line.rstrip()) for line in text.split("\n"))


def _advice(fitted: FittedHead) -> str:
    lines = []
    if fitted.default is None:
        lines.append("The labels mean nothing to the base: --map OWN=ITS,… says what they do, for a comparison.")
    elif fitted.unsaid:
        lines.append(f"The base has no answer for {', '.join(fitted.unsaid)}: there it counts as wrong.")
    own = fitted.default.ua if fitted.default is not None else 0.0
    if own >= fitted.evaluation.ua:
        lines.append(
            "The base's own answer is as good or better: use the base, or label more recordings, of more speakers."
        )
    elif fitted.evaluation.ua_interval.low <= max(1 / len(fitted.labels), own):
        lines.append("The head is not clearly better than what costs nothing: label more recordings, of more speakers.")
    if fitted.by is None:
        lines.append("A speaker may be on both sides of a fold, which flatters: name the column, --by COLUMN.")
    return "\n".join(lines)


def _share(value: float, interval: Interval) -> str:
    return f"{100 * value:.2f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
