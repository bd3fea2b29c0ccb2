"""Figures of the report: a drawing made by Vega-Altair, and the same numbers as a table for whoever cannot see it.

Colours of text and lines are CSS variables, so that one SVG is readable on light, on dark and on paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from ser_batch.text import terminal_safe

WIDTH = 560
PALETTE = ("#8a8f98", "#3d9c9b", "#d99a00", "#4c78d0", "#d1495b", "#8e5bb5", "#5f9245", "#e0703f")
"""Readable on white and on near-black; labels beyond the eighth begin again."""
INK, FAINT, ACCENT = "var(--ink)", "var(--line)", "var(--accent)"
Cell = object
"""Text or a number."""
Chart = Any
"""Of Altair, whose layers are not typed."""
THEME: dict[str, Any] = {
    "background": "transparent",
    "font": "Arial, Helvetica, sans-serif",
    # Where the page's font is wider than the one that Vega measures with, names need room.
    "padding": {"left": 28, "right": 12, "top": 4, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": INK, "titleColor": INK, "tickColor": FAINT, "domainColor": FAINT, "gridColor": FAINT},
        **{"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 320},
        **{"titlePadding": 12},
    },
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12},
    "header": {"labelColor": INK, "titleColor": INK},
    "text": {"color": INK, "fontSize": 12},
}


@dataclass(frozen=True)
class Table:
    """Cells ready to show; numbers are aligned to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Figure:
    """A drawing, what it says in one sentence, and its numbers."""

    title: str
    summary: str
    svg: str
    table: Table


def svg(chart: Chart) -> str:
    """The chart as SVG text, to stand inside a page."""
    drawn: str = vl_convert.vegalite_to_svg({**chart.to_dict(), "config": THEME})
    return drawn


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label."""
    return {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)}


def bars(
    shares: Mapping[str, float], title: str, *, palette: Mapping[str, str] | None = None, percent: bool = True
) -> Chart:
    """Horizontal bars with their values, in the order given."""
    names = [short(name) for name in shares]
    rows = [
        {"name": name, "value": value, "text": f"{value:.1%}" if percent else f"{value:,.0f}"}
        for name, value in zip(names, shares.values(), strict=True)
    ]
    base = alt.Chart(_data(rows), width=WIDTH - 160).encode(
        y=alt.Y("name:N", sort=names, title=None),
        # Each bar says its value.
        x=alt.X(
            "value:Q", title=title, axis=alt.Axis(labels=False, ticks=False, grid=False, domain=False, titlePadding=2)
        ),
    )
    colour: Any = alt.value(ACCENT)
    if palette:
        colour = alt.Color(
            "name:N", scale=alt.Scale(domain=names, range=[palette[name] for name in shares]), legend=None
        )
    return base.mark_bar().encode(color=colour) + base.mark_text(align="left", dx=4, color=INK).encode(text="text:N")


def histogram(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]], title: str, palette: Mapping[str, str]
) -> Chart:
    """Counts by bin, stacked by name; a name without a colour has the accent's.

    Args:
        edges: (B + 1,) of the bins.
        counts: name -> (B,).
    """
    rows = [
        {"low": edges[i], "high": edges[i + 1], "name": name, "count": count}
        for name, series in counts.items()
        for i, count in enumerate(series)
        if count
    ]
    names, domain = list(counts), alt.Scale(domain=[edges[0], edges[-1]], nice=False)
    return (
        alt.Chart(_data(rows), width=WIDTH, height=180)
        .mark_bar()
        .encode(
            x=alt.X("low:Q", bin="binned", title=title, scale=domain, axis=alt.Axis(tickCount=10)),
            x2="high:Q",
            y=alt.Y("count:Q", title="rows", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=names, range=[palette.get(name, ACCENT) for name in names]),
                legend=alt.Legend(title=None, orient="top", columns=4) if len(names) > 1 else None,
            ),
        )
    )


def heat(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], down: str, across: str) -> Chart:
    """Counts as a matrix; a cell is as strong as its share of its row."""
    cells = [
        {"row": row, "column": column, "count": count, "share": count / max(sum(line), 1)}
        for row, line in zip(rows, counts, strict=True)
        for column, count in zip(columns, line, strict=True)
    ]
    base = alt.Chart(_data(cells), width=44 * len(columns), height=28 * len(rows)).encode(
        y=alt.Y("row:N", sort=list(rows), title=down),
        x=alt.X("column:N", sort=list(columns), title=across, axis=alt.Axis(orient="top", labelAngle=-40)),
    )
    opacity = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 0.75]), legend=None)
    return base.mark_rect(color=ACCENT).encode(opacity=opacity) + base.mark_text(color=INK).encode(text="count:Q")


def reliability(bins: Sequence[Mapping[str, float]]) -> Chart:
    """Accuracy of each bin of the winning probability, beside what it should be."""
    domain = alt.Scale(domain=[0, 1])
    line = alt.Chart(_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]), width=260, height=260)
    points = alt.Chart(_data(bins))
    return line.mark_line(color=INK, strokeDash=[4, 4]).encode(
        x=alt.X("x:Q", title="mean winning probability", scale=domain, axis=alt.Axis(format=".0%")),
        y=alt.Y("y:Q", title="share right", scale=domain, axis=alt.Axis(format=".0%")),
    ) + points.mark_circle(color=ACCENT, opacity=0.85).encode(
        x="confidence:Q", y="accuracy:Q", size=alt.Size("clips:Q", title="rows", scale=alt.Scale(range=[30, 600]))
    )


def intervals(rows: Sequence[Mapping[str, Any]], title: str) -> Chart:
    """A point with its interval for each name."""
    shown = [{**row, "name": short(str(row["name"]))} for row in rows]
    names = [row["name"] for row in shown]
    base = alt.Chart(_data(shown), width=WIDTH - 160).encode(y=alt.Y("name:N", sort=names, title=None))
    axis = alt.X("low:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))
    return base.mark_rule(color=ACCENT, strokeWidth=2).encode(x=axis, x2="high:Q") + base.mark_point(
        color=ACCENT, filled=True, size=60
    ).encode(x=alt.X("value:Q", title=title))


def timeline(labels: Sequence[str], not_scored: str) -> dict[str, Any]:
    """A Vega-Lite specification that the page draws itself, for the recording that is asked for.

    Its data set `windows` has the fields start, end (seconds), label, share (of 1) and channel.
    """
    names, palette = [*labels, not_scored], {**colours(labels), not_scored: PALETTE[0]}
    cells = (
        alt.Chart(alt.NamedData(name="windows"), width=WIDTH + 160, height=22 * len(names))
        .mark_rect()
        .encode(
            x=alt.X("start:Q", title="seconds", scale=alt.Scale(nice=False)),
            x2="end:Q",
            y=alt.Y("label:N", sort=names, title=None, scale=alt.Scale(domain=names)),
            color=alt.Color("label:N", scale=alt.Scale(domain=names, range=[palette[n] for n in names]), legend=None),
            opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 1]), legend=None),
        )
    )
    drawn = cells.facet(row=alt.Row("channel:N", title=None)).properties(bounds="flush")
    return {**drawn.to_dict(), "config": THEME}


def _data(rows: Sequence[Mapping[str, Any]]) -> Any:
    return alt.Data(values=list(rows))  # type: ignore[no-untyped-call]


def short(name: str) -> str:
    """A name as far as a drawing has room for it, without what a terminal or a page would obey."""
    safe = terminal_safe(name)
    return safe if len(safe) <= 60 else safe[:59] + "…"
