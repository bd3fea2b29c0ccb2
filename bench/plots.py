"""The plots of the HTML page: latency against batch, throughput against latency, agreement against throughput."""

from __future__ import annotations

import io
from typing import Any

from bench.results import Document
from ser_batch.errors import InputError

Curves = dict[str, list[dict[str, Any]]]


def plots(result: Document) -> list[tuple[str, bytes]]:
    """(title, SVG) of every plot that the result's latencies allow; none for results without.

    Raises:
        InputError: matplotlib is missing.
    """
    curves = _curves(result)
    if not curves:
        return []
    found = [
        ("Latency against batch size", _plot(curves, "batch", "ms", "batch size", "median latency, ms a batch")),
        ("Throughput against latency", _plot(curves, "ms", "rate", "median latency, ms a batch", "clips/s")),
    ]
    if agreement := result.get("agreement"):
        found.append(("Precision against agreement with the reference", _agreement(curves, agreement)))
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
        axes.plot([p[x] for p in points], [p[y] for p in points], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    return _svg(figure, axes)


def _agreement(curves: Curves, agreement: dict[str, Any]) -> bytes:
    figure, axes = _figure()
    best: dict[str, float] = {}
    for label, points in curves.items():
        if label.startswith("fused, "):
            best[points[0]["engine"]] = max(p["rate"] for p in points)
    for engine, rate in best.items():
        if engine in agreement:
            # An exact match has no place on a logarithmic axis.
            difference = max(agreement[engine]["max_difference"], 1e-9)
            axes.plot([rate], [difference], marker="o", linestyle="", label=engine)
    axes.set(yscale="log", xlabel="best clips/s, fused", ylabel="max |Δp| on the reference clips")
    return _svg(figure, axes)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "the page's plots need matplotlib", got=error, remedy="Install it: pip install 'ser-batch[train]'."
        ) from error
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, axes: Any) -> bytes:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="x-small")
    out = io.BytesIO()
    # Without a date, the same result gives the same page.
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
