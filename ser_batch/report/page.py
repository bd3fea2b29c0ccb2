"""The report as one HTML file: no script, style, font or picture is fetched from anywhere."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2

from ser_batch.errors import InputError, OutputError
from ser_batch.evaluation.evaluate import Question, ServedEvaluation, as_asked, evaluate_predictions
from ser_batch.evaluation.predictions import PredictionTable, read_predictions
from ser_batch.evaluation.report import coverage_lines, note_lines
from ser_batch.files import write_atomically, writing
from ser_batch.report import measured, predicted
from ser_batch.report.figures import timeline
from ser_batch.report.recordings import ROWS, has_windows, linked, rows
from ser_batch.text import terminal_safe

NOT_SCORED = "not scored"
PROVENANCE = ("bundle_id", "backend", "precision", "device", "version", "clip", "adaptation")
LONG = 300
"""Characters of a fact of the provenance that are shown."""


@dataclass(frozen=True)
class Asked:
    """What a report is made of."""

    predictions: str
    second: str | None = None
    """Predictions to compare with."""
    question: Question | None = None
    """Labels, as for `evaluation.evaluate`; None: there are none."""
    audio: Path | None = None
    """Folder that the names of recordings start in."""
    embed: int = 0
    """Recordings whose audio is put into the page."""


def write_report(asked: Asked, out: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write the page to `out`, which has its name once it is whole; its size in bytes is returned.

    Raises:
        InputError: predictions, labels or recordings cannot be read, or do not fit.
        OutputError: `out` is no name of a page, exists, or cannot be written.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"{page} is no name of a report, which is one HTML page", expected="a name that ends in .html"
        )
    if page.exists() and not overwrite:
        raise OutputError(f"{page} exists already", remedy="Choose another, or replace it: --overwrite.")
    text = render(asked, page).encode()
    with writing(page):
        write_atomically(page, text)
    return len(text)


def render(asked: Asked, page: Path) -> str:
    """The page as text; links in it are relative to where `page` is to be."""
    table = read_predictions(asked.predictions, segments=True)
    if not table.files:
        raise InputError(f"{asked.predictions} holds no row")
    second = read_predictions(asked.second, segments=True) if asked.second else None
    if asked.question:
        # Labels that are merged or left out are so in every figure and row.
        table = as_asked(table, asked.question)[0]
        second = as_asked(second, asked.question)[0] if second else None
    audio = linked(asked.audio, page, table, asked.embed)
    served = evaluate_predictions(asked.predictions, asked.question) if asked.question else None
    truth = measured.truth_of(asked.predictions, table, asked.question) if asked.question else None
    names = _names(asked)
    comparison = measured.compare(table, second, names, truth) if second else None
    other = measured.labels_of_second(table, second) if second else None
    data = rows(table, audio, truth, other) | {"second": names[1] if second else None}
    windows = has_windows(table)
    return _template().render(
        title=names[0],
        asked=asked,
        facts=_facts(asked, table, served),
        predicted=predicted.figures(table),
        models=measured.models(served) if served else None,
        measured=measured.figures(served) if served else [],
        comparison=comparison,
        names=names,
        left_out=max(0, len(table.files) - ROWS),
        shown=min(len(table.files), ROWS),
        data=_json(data),
        timeline=_json(timeline(table.labels, NOT_SCORED)) if windows else None,
        library=_library() if windows else None,
        style=_resource("page.css"),
        script=_resource("page.js"),
    )


def _names(asked: Asked) -> tuple[str, str]:
    """What the two tables are called: by their file names, or where these are alike, by their paths."""
    first, second = terminal_safe(Path(asked.predictions).name), terminal_safe(Path(asked.second or "").name)
    if first == second:
        return terminal_safe(asked.predictions), terminal_safe(asked.second or "")
    return first, second


def _facts(asked: Asked, table: PredictionTable, served: ServedEvaluation | None) -> list[tuple[str, str]]:
    """Where the rows come from, and how many there are of each status."""
    statuses = {status: table.statuses.count(status) for status in dict.fromkeys(table.statuses)}
    hours = predicted.column(table, "end") - predicted.column(table, "start")
    facts = [
        ("predictions", asked.predictions),
        ("rows", f"{len(table.files):,}: " + ", ".join(f"{count:,} {status}" for status, count in statuses.items())),
    ]
    if (hours >= 0).any():
        facts.append(("audio scored", f"{hours[hours >= 0].sum() / 3600:,.2f} hours"))
    facts += [(name, table.provenance[name]) for name in PROVENANCE if name in table.provenance]
    if served:
        facts += [("truth", served.truth), *coverage_lines(served.coverage), *note_lines(served)]
    return [(name, value if len(value) <= LONG else value[:LONG] + "…") for name, value in facts]


def _json(value: Any) -> str:
    """JSON that can stand in a script element, whatever names it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Only inside strings can these occur.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode()


def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["safe_name"] = terminal_safe
    return environment.from_string(_resource("page.html"))


def _resource(name: str) -> str:
    return (resources(__package__) / name).read_text(encoding="utf-8")
