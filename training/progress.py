"""What a training run prints: a line an epoch, a table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.diagnostics import read_all, summary


def print_epoch(stage: str, row: dict[str, float]) -> None:
    """One epoch's figures on one line of standard error."""
    figures = f"loss {row['train_loss']:.3f}  "
    if "loss" in row:
        figures += f"validation: loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, "
        figures += f"macro-F1 {row['macro_f1']:.3f}  "
    figures += f"{row['seconds']:.1f} s"
    Console(stderr=True, highlight=False).print(f"{stage:12} epoch {row['epoch']:3.0f}  {figures}", soft_wrap=True)


def print_result(test: dict[str, dict[str, Any]]) -> None:
    """The test figures of each branch and of the fusion as a table on standard output."""
    table = Table("model", "accuracy", "macro-P", "macro-R (UA)", "macro-F1", title="test")
    for model, scores in test.items():
        figures = (scores["accuracy"], *(scores["macro"][name] for name in ("precision", "recall", "f1")))
        table.add_row(model, *(f"{100 * value:.2f}" for value in figures))
    Console().print(table)


def print_diagnostics(run: Path) -> None:
    """One line on standard error for each branch trained: which of its parts speak, and how far each moved."""
    for name, found in read_all(run).items():
        Console(stderr=True, highlight=False).print(f"{name:12} {summary(found)}", soft_wrap=True)
