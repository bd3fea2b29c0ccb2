"""The plots of the HTML page: latency against batch, throughput against latency, precision against accuracy."""

from __future__ import annotations

import io
from typing import Any

from bench.results import Document
from ser_batch.errors import InputError

Curves = dict[str, list[dict[str, Any]]]


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
        if m.get("mode") != "closed loop":
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
