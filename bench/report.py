"""`bench report`: results as one HTML file with plots inside, or as the generated regions of a Markdown page.

A region lies between `<!-- generated: NAME; … -->` and `<!-- end of NAME -->`; the rest of the page is written by hand.
The plots are latency against batch, throughput against latency, and precision against accuracy.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from bench.answer import answer
from bench.environment import clocks_line, machine_line
from bench.latency import CLOSED
from bench.results import Document, Results, warnings_of
from bench.scaling import scaling_table
from bench.tables import Table, markdown, tables
from ser_batch.errors import InputError
from ser_batch.files import write_atomically, writing

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
table { display: block; overflow-x: auto }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .warning { color: #a40 } pre { overflow-x: auto; background: #f5f5f5; padding: .5rem }
"""
_REGION = re.compile(r"(<!-- generated: (\w+);[^>]*-->)(.*?)(<!-- end of \2 -->)", re.DOTALL)
_SECTIONS = {
    "latency": ("Latency", "bench latency AUDIO --json latency.json"),
    "throughput": ("Throughput from files", "bench throughput AUDIO --json throughput.json"),
    "formats": ("Formats of recordings", "bench formats AUDIO --json formats.json"),
    "resume": ("Resuming a finished run", "bench resume AUDIO --json resume.json"),
    "peers": ("Beside what a user would pick instead", "bench peers --size base --json peers.json"),
    "precisions": ("Precisions of a bundle, in turns", "bench precisions --bundle BUNDLE --json precisions.json"),
    "end_to_end": (
        "From files to labels, beside what a user would write instead",
        "bench end-to-end AUDIO --json end-to-end.json",
    ),
    "startup": ("Start-up", "bench startup FILE --json startup.json"),
    "training": ("Training", "bench training --json training.json"),
    "smoke": ("Smoke ratios", "bench smoke --json smoke.json"),
    "gpu_sweep": ("On a GPU", "bash bench/gpu_sweep.sh FOLDER"),
}
"""Kind of result → its title, and the command that makes one, on the page of benchmarks."""
Curves = dict[str, list[dict[str, Any]]]


def write_html(results: Results, out: Path) -> None:
    """Write the HTML page of `results` to `out`; OutputError if it cannot be written."""
    body = "\n".join(_html_section(Path(name).name, result) for name, result in results)
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>ser-batch benchmarks</title><style>{_STYLE}</style><h1>ser-batch benchmarks</h1>\n{body}\n</html>\n"
    )
    _write(out, page)


def renew_page(page: Path, results: Results) -> None:
    """Replace every generated region of a Markdown page by what `results` give.

    Raises:
        InputError: the page cannot be read, or has no region, an unknown one or one that is not closed.
        OutputError: the page cannot be written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page} cannot be read", got=error.strerror) from error
    names = re.findall(r"<!-- generated: (\w+)", text)
    if not names or len(names) != len(_REGION.findall(text)) or not set(names) <= set(REGIONS):
        expected = f"<!-- generated: NAME; … --> … <!-- end of NAME -->, NAME being {' or '.join(REGIONS)}"
        raise InputError(f"{page} has no generated region, or a damaged one", got=", ".join(names), expected=expected)
    _write(page, _REGION.sub(lambda found: f"{found[1]}\n\n{REGIONS[found[2]](results)}\n\n{found[4]}", text))


def sections(results: Results) -> str:
    """A section in Markdown for each kind of result, with machine, versions, commit and command of each result."""
    written = []
    for kind, (title, command) in _SECTIONS.items():
        body = "\n\n".join(_folded(name, result) for name, result in results if result["kind"] == kind)
        written.append(f"## {title}\n\n{body or f'No result yet: `{command}` makes one.'}")
    return "\n\n".join([*written, *_left_out(results)])


def adaptation(results: Results) -> str:
    """What `ser-batch adapt` is worth, by result."""
    return "\n\n".join(_section(name, result) for name, result in results if result["kind"] == "adaptation")


REGIONS = {"answer": answer, "results": sections, "scaling": scaling_table, "adaptation": adaptation}
"""Name of a generated region → what fills it."""


def _section(name: str, result: Document) -> str:
    environment = result["environment"]
    versions = ", ".join(f"{package} {number}" for package, number in environment["packages"].items())
    load, clocks = environment["load_average_at_start"], clocks_line(environment)
    facts = [
        f"`{name}`: {machine_line(environment)}.",
        f"{environment['time']}, commit {environment['git'] or 'unknown'}, load average {load} at the start;",
        *([f"{clocks};"] if clocks else []),
        f"Python {environment['python']}, {versions}. Command: `{environment['command']}`",
    ]
    parts = [" ".join(facts), *(f"**{table.title}**\n\n{markdown(table)}" for table in tables(result))]
    return "\n\n".join(parts)


def _folded(name: str, result: Document) -> str:
    summary = f"<summary>{html.escape(tables(result)[0].title)} (<code>{html.escape(Path(name).name)}</code>)</summary>"
    return f"<details>{summary}\n\n{_section(name, result)}\n\n</details>"


def _left_out(results: Results) -> list[str]:
    """A section that says each reason why an engine was not measured once, and in how many results."""
    reasons: Counter[str] = Counter()
    for _, result in results:
        for engine, reason in result.get("absent", {}).items():
            # Of a bundle without a graph: which bundle it was, and where it lay, the result says.
            short = re.sub(r"^bundle \S+ has", "the bundle has", reason.partition("; expected ")[0])
            reasons[f"`{engine}`: {short}"] += 1
    lines = [f"- {reason} (in {count} of {len(results)} results)" for reason, count in reasons.items()]
    return ["## Left out", "\n".join(lines)] if lines else []


def _html_section(name: str, result: Document) -> str:
    environment = result["environment"]
    title = html.escape(f"{name}: {result['kind']}")
    machine = "; ".join(filter(None, [machine_line(environment), clocks_line(environment)]))
    parts = [f"<h2>{title}</h2>", f"<p>{html.escape(machine)}</p>"]
    parts += [_html_table(table) for table in tables(result)]
    for caption, svg in plots(result):
        # As an image, so that the identifiers inside one plot do not meet those of the next.
        data = base64.b64encode(svg).decode()
        parts.append(f"<h3>{caption}</h3><img alt='{caption}' src='data:image/svg+xml;base64,{data}'>")
    parts += [f"<p class=warning>{html.escape(line)}</p>" for line in warnings_of(result)]
    details = html.escape(json.dumps(environment, indent=1, ensure_ascii=False))
    return "\n".join([*parts, f"<details><summary>Environment</summary><pre>{details}</pre></details>"])


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}" for cell in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in table.rows)
    return f"<h3>{html.escape(table.title)}</h3><table><tr>{head}{rows}</table>"


def _write(path: Path, text: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


def plots(result: Document) -> list[tuple[str, bytes]]:
    """(title, SVG) of every plot that the latencies of a result allow; none for a result without latencies.

    Raises:
        InputError: matplotlib is missing.
    """
    curves = _curves(result)
    if not curves:
        return []
    found = [
        ("Latency against batch size", _plot(curves, "batch", "ms", "batch size", "median latency, ms per batch")),
        ("Throughput against latency", _plot(curves, "ms", "rate", "median latency, ms per batch", "clips/s")),
    ]
    best = _best(curves)
    if accuracy := result.get("accuracy"):
        values = {engine: 100 * a["accuracy"] for engine, a in accuracy.items()}
        clips, corpus = next((a["clips"], a["corpus"]) for a in accuracy.values())
        found.append(
            (
                "Precision against accuracy",
                _engines(best, values, f"accuracy on {clips} clips of {corpus},\nwhich may hold those of training, %"),
            )
        )
    if agreement := result.get("agreement"):
        # An exact match has no place on a logarithmic axis.
        values = {engine: max(a["max_difference"], 1e-9) for engine, a in agreement.items()}
        plot = _engines(best, values, "max |Δp| on the reference clips", log=True)
        found.append(("Precision against agreement with the reference", plot))
    return found


def _curves(result: Document) -> Curves:
    curves: Curves = {}
    for m in result.get("measurements", []):
        if m.get("mode") != CLOSED:
            continue
        label = f"{m['target']}, {m['backend']} {m['precision']}, {m['device']}"
        point = {
            "batch": m["batch"],
            "ms": 1e3 * m["stages"]["total"]["median"],
            "rate": m["clips_per_second"],
            "engine": f"{m['backend']} {m['precision']}",
        }
        curves.setdefault(label, []).append(point)
    return curves


def _plot(curves: Curves, x: str, y: str, x_label: str, y_label: str) -> bytes:
    figure, axes = _figure()
    for label, points in curves.items():
        ordered = sorted(points, key=lambda point: point["batch"])
        axes.plot([p[x] for p in ordered], [p[y] for p in ordered], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
    if x == "batch":
        axes.set_xticks(sorted({p["batch"] for points in curves.values() for p in points}), minor=False)
        axes.set_xticks([], minor=True)
    return _svg(figure, axes)


def _plain_ticks(axis: Any) -> None:
    """1, 2, 5, 10, 20 … written out, where a logarithmic axis would have powers of ten alone; more on a short axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _best(curves: Curves) -> dict[str, float]:
    """Engine → clips/s of the whole bundle at its best batch size."""
    fused = (points for label, points in curves.items() if label.startswith("fused, "))
    return {points[0]["engine"]: max(point["rate"] for point in points) for points in fused}


def _engines(best: dict[str, float], values: dict[str, float], label: str, *, log: bool = False) -> bytes:
    """One point per engine: its rate, and its value."""
    figure, axes = _figure()
    for engine, rate in best.items():
        if engine in values:
            axes.plot([rate], [values[engine]], marker="o", linestyle="", label=engine)
    axes.set(yscale="log" if log else "linear", xlabel="best clips/s, fused", ylabel=label)
    return _svg(figure, axes)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "the page's plots need matplotlib", got=error, remedy="Install it: pip install 'ser-batch[train]'."
        ) from error
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, axes: Any) -> bytes:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        # Beside the plot: inside, it would cover curves.
        figure.legend(fontsize="x-small", loc="outside right upper")
    out = io.BytesIO()
    # Without a date, the same result gives the same page.
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
