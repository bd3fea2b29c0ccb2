"""`bench report`: one HTML file of results, with plots inside, that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

from bench.clocks import clocks_line
from bench.environment import summary
from bench.plots import plots
from bench.results import NUMBERS, Document
from bench.tables import Table, tables
from ser_batch.errors import OutputError

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
table { display: block; overflow-x: auto }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .warning { color: #a40 } pre { overflow-x: auto; background: #f5f5f5; padding: .5rem }
"""
_ABOUT = (
    *("command", "label", "branch", "backend", "precision", "target", "format", "step", "files", "batch", "workers"),
    "mode",
)
"""What tells the row that a warning is about."""


def write_report(results: list[tuple[str, Document]], out: Path) -> None:
    """Write the page of (name, result) pairs to `out`; OutputError if it cannot be."""
    body = "\n".join(_section(name, result) for name, result in results)
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>ser-batch benchmarks</title><style>{_STYLE}</style><h1>ser-batch benchmarks</h1>\n{body}\n</html>\n"
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} cannot be written", got=error.strerror) from error


def _section(name: str, result: Document) -> str:
    environment = result["environment"]
    title = html.escape(f"{name}: {result['kind']}")
    machine = "; ".join(filter(None, [summary(environment), clocks_line(environment)]))
    parts = [f"<h2>{title}</h2>", f"<p>{html.escape(machine)}</p>"]
    parts += [_table(table) for table in tables(result)]
    for caption, svg in plots(result):
        # As an image, so that the identifiers inside one plot do not meet those of the next.
        data = base64.b64encode(svg).decode()
        parts.append(f"<h3>{caption}</h3><img alt='{caption}' src='data:image/svg+xml;base64,{data}'>")
    parts += [f"<p class=warning>{html.escape(line)}</p>" for line in warnings_of(result)]
    details = html.escape(json.dumps(environment, indent=1, ensure_ascii=False))
    return "\n".join([*parts, f"<details><summary>Environment</summary><pre>{details}</pre></details>"])


def warnings_of(result: Document) -> list[str]:
    """Every warning of a result, each with what it is about, and why things were left out."""
    found = []
    for row in [
        *result.get("measurements", []),
        *result.get("candidates", []),
        *result.get("commands", []),
        *result.get("branches", []),
        *result.get("steps", []),
    ]:
        about = ", ".join(NUMBERS.get(key, "{}").format(row[key]) for key in _ABOUT if key in row)
        found += [f"{about}: {warning}" for warning in row["warnings"]]
    return [*found, *(f"left out: {name}: {reason}" for name, reason in result.get("absent", {}).items())]


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}" for cell in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in table.rows)
    return f"<h3>{html.escape(table.title)}</h3><table><tr>{head}{rows}</table>"
