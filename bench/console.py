"""What the commands print: tables on stdout, notes and progress on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import rich.console
import rich.table
import rich.text

from bench import results
from bench.report import warnings_of
from bench.results import Document
from bench.tables import Table, tables


def finish(result: Document, json_path: Path | None) -> None:
    """Print a result's tables, and its warnings to stderr; then write it if asked to, so that no full disk hides it."""
    for table in tables(result):
        show(table)
    for warning in warnings_of(result):
        click.echo(f"note: {warning}", err=True)
    if json_path:
        results.write(result, json_path)


def show(table: Table) -> None:
    """Print one table."""
    shown = rich.table.Table(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        # As text: a name may hold what rich reads as markup.
        shown.add_row(*(rich.text.Text(cell) for cell in row))
    # A pipe has no width, and a narrow guess would break every row.
    rich.console.Console(width=None if sys.stdout.isatty() else 240).print(shown)


def progress(line: str) -> None:
    """Name what was just measured, where someone is watching."""
    if sys.stderr.isatty():
        click.echo(line, err=True)
