"""Where each result comes from: its command, machine and commit, and the settings of its recipe beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from training.reproduction.markdown import table
from training.reproduction.results import Experiment

TITLE = "Settings of the recipes"
"""Of the section that `settings` fills; the notes link to it."""


def title(experiment: Experiment) -> str:
    """Backbone and recipe, as results are named."""
    return f"{experiment.backbone}, recipe {experiment.recipe}"


def notes(found: Iterable[Experiment], experiments: Sequence[Experiment]) -> list[str]:
    """A line an experiment: how, when and where it was measured, and what its settings differ in from the listed."""
    listed = _references(experiments)
    anchor = TITLE.lower().replace(" ", "-")
    lines = []
    for e in found:
        other = _differences(listed[e.backbone, e.recipe].changed, e.changed)
        lines.append(
            f"- {title(e)}: `{e.measured['command']}`, {e.measured['seconds']:.0f} s, {e.measured['date']}, "
            f"commit {str(e.measured['git'])[:12]}, {e.measured['processor']}. "
            f"[{TITLE}](#{anchor})" + (f", but for {'; '.join(other)}." if other else ".")
        )
    return ["\n".join(lines)] if lines else []


def settings(experiments: Sequence[Experiment]) -> str:
    """Every measured recipe's fields that are not the paper's."""
    parts = []
    for e in _references(experiments).values():
        rows = [[f"`{key}`", short(paper), short(here)] for key, (paper, here) in e.changed.items()]
        parts += [f"**{title(e)}**", table(["field", "paper", "here"], rows) if rows else "As the paper."]
    return "\n\n".join(parts) or "Nothing is measured yet."


def short(value: Any) -> str:
    """A setting's value in at most 40 characters."""
    text = "off" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _references(experiments: Sequence[Experiment]) -> dict[tuple[str, str], Experiment]:
    """Backbone and recipe → the experiment whose settings stand for it: its paper split, else its first."""
    found: dict[tuple[str, str], Experiment] = {}
    for e in sorted(experiments, key=lambda e: (e.experiment, e.protocol) != ("protocol", "paper")):
        found.setdefault((e.backbone, e.recipe), e)
    return dict(sorted(found.items()))


def _differences(listed: dict[str, list[Any]], here: dict[str, list[Any]]) -> list[str]:
    values = {key: here[key][1] if key in here else listed[key][0] for key in sorted({*listed, *here})}
    known = {key: listed[key][1] if key in listed else here[key][0] for key in values}
    return [f"`{key}` {short(values[key])}" for key in values if values[key] != known[key]]
