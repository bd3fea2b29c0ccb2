"""What the paper leaves open and the configuration fills in, read off the source of training/config.py.

A field is an assumption where its docstring says "ancestor" (a value of the notebooks the paper descends from) or
"ours" (this project's choice). Parsing the source rather than keeping a list means that none can be forgotten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from training.reproduction.markdown import table

CONFIG = Path(__file__).parents[1] / "config.py"


class Assumption(NamedTuple):
    """One field, or one named constant, whose value the paper does not give."""

    name: str
    """"SpectrogramConfig.cnn_dropout"."""
    value: str
    """The default as the source writes it."""
    origin: str
    """"ancestor", "ours" or both."""
    text: str
    """Its docstring on one line."""


def assumptions(source: Path = CONFIG) -> list[Assumption]:
    """Every assumption of a configuration module, in the order of its source."""
    found = []
    for name, value, text in _documented(ast.parse(source.read_text())):
        origins = sorted(set(re.findall(r"\b(ancestor|ours)\b", text)))
        if origins:
            found.append(Assumption(name, value, " and ".join(origins), text))
    return found


def _documented(module: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, docstring) of every assignment that a string follows, in classes and outside."""
    bodies = [("", module.body)] + [(f"{n.name}.", n.body) for n in module.body if isinstance(n, ast.ClassDef)]
    for prefix, body in bodies[1:] + bodies[:1]:
        for statement, after in pairwise(body):
            if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                continue
            if isinstance(statement, ast.AnnAssign):
                target, value = statement.target, statement.value
            elif isinstance(statement, ast.Assign):
                target, value = statement.targets[0], statement.value
            else:
                continue
            default = "(required)" if value is None else ast.unparse(value)
            yield prefix + ast.unparse(target), default, " ".join(str(after.value.value).split())


def assumptions_table() -> str:
    """The assumptions as a Markdown table."""
    rows = [(f"`{row.name}`", f"`{row.value}`", row.origin, row.text) for row in assumptions()]
    return table(["field of training/config.py", "value", "from", "what it is"], rows)
