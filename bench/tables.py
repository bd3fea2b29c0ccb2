"""Results as tables: one description of the columns, for the terminal, for Markdown and for HTML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results import Document

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Cells ready to show."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(result: Document) -> list[Table]:
    """The tables of a result of any kind, in reading order."""
    return _TABLES[result["kind"]](result)


def markdown(table: Table) -> str:
    """`table` in GitHub's Markdown, without its title."""
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def show(table: Table) -> None:
    """Print `table` on the terminal."""
    import rich.console
    import rich.table
    import rich.text

    shown = rich.table.Table(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        # As text: a name may hold what rich reads as markup.
        shown.add_row(*(rich.text.Text(cell) for cell in row))
    # A pipe has no width, and a narrow guess would break every row.
    rich.console.Console(width=None if sys.stdout.isatty() else 240).print(shown)


def _latency(result: Document) -> list[Table]:
    found = result["measurements"]
    stages = [
        name
        for name in ("queueing", "host_to_device", "enqueue", "device_to_host", "fusion", "from_file")
        if any(name in m["stages"] for m in found)
    ]
    columns = ("target", "backend", "mode", "batch", "p50", "p90", "p95", "p99", "sd", "CoV", "compute")
    rest = ("clips/s", "× real time", "GFLOP/clip", "of peak", "RSS")
    # No engine on a CPU reports any.
    device = ("device memory",) if any(m["device_memory"] for m in found) else ()
    rows = [
        (
            *(m["target"], f"{m['backend']} {m['precision']}, {m['device']}", m["mode"], str(m["batch"])),
            *(_ms(m["stages"]["total"][name]) for name in ("median", "p90", "p95", "p99", "sd")),
            f"{m['stages']['total']['cov']:.1%}",
            *(_ms(m["stages"][name]["median"]) if name in m["stages"] else "–" for name in ("compute", *stages)),
            f"{m['clips_per_second']:.1f}",
            f"{m['real_time_factor']:.0f}",
            "–" if m["flops_per_clip"] is None else f"{m['flops_per_clip'] / 1e9:.2f}",
            "–" if m["peak_share"] is None else f"{m['peak_share']:.0%}",
            _mib(m["peak_rss"]),
            *(_mib(m["device_memory"]) if m["device_memory"] else "–" for _ in device),
            str(m["stages"]["total"]["n"]),
        )
        for m in found
    ]
    shown = (*columns, *(name.replace("_", " ") for name in stages), *rest, *device, "n")
    # Results from before AUDIO could be left out do not say.
    clips = f": {result['clips']}" if "clips" in result else ""
    return [Table(f"Latency, ms per batch{clips}", shown, rows), *_peaks(result)]


def _throughput(result: Document) -> list[Table]:
    columns = ("backend", "workers", "batch", "files", "failed", "files/s", "audio h/s", "of engine alone", "start s")
    rest = ("steady files/s", "steady, of engine alone", "engine clips/s", "decode files/s")
    cpu = ("engine CPU ms", "decode CPU ms", "pipeline CPU ms", "most time in", "RSS", "n")
    rows = [
        (
            *(f"{m['backend']} {m['precision']}, {m['device']}", str(m["workers"]), str(m["batch"]), str(m["files"])),
            *(str(m["failures"]), f"{m['files_per_second']:.1f}", f"{m['audio_hours_per_second']:.3f}"),
            *(f"{m['engine_share']:.0%}", f"{m['startup_seconds']:.2f}", f"{m['steady_files_per_second']:.1f}"),
            *(f"{m['steady_share']:.0%}", f"{m['engine_clips_per_second']:.1f}"),
            *(f"{m['decode_files_per_second']:.1f}", *(_ms(m["cpu_seconds"][k]) for k in _CPU)),
            *("{} {:.0%}".format(*m["bottleneck"]), _mib(m["peak_rss"]), str(m["seconds"]["n"])),
        )
        for m in result["measurements"]
    ]
    memory = [(str(m["files"]), f"{m['seconds']:.1f}", _mib(m["peak_rss"])) for m in result.get("memory", [])]
    found = [Table("Throughput from files", (*columns, *rest, *cpu), rows)]
    return [*found, Table("Memory against files", ("files", "seconds", "RSS"), memory)] if memory else found


def _formats(result: Document) -> list[Table]:
    columns = ("format", "backend", "workers", "batch", "files", "KiB per file", "decoder", "decode CPU ms")
    rows = [
        (
            *(m["format"], f"{m['backend']} {m['precision']}, {m['device']}", str(m["workers"]), str(m["batch"])),
            *(str(m["files"]), f"{m['bytes_per_file'] / 2**10:.1f}"),
            # Results of before FFmpeg was there say nothing of decoders.
            *(m.get("decoder", "libsndfile"), _ms(m["decode_cpu_seconds"])),
            _ms(m["ffmpeg_cpu_seconds"]) if "ffmpeg_cpu_seconds" in m else "–",
            *(f"{m['files_per_second']:.1f}", f"{m['audio_hours_per_second']:.3f}"),
            *(f"{m['plain_files_per_second']:.1f}", f"{m['speedup']:.2f}", str(m["differing"])),
            *(str(m["unscored"]), str(m["seconds"]["n"])),
        )
        for m in result["measurements"]
    ]
    rest = (
        "with FFmpeg",
        "files/s",
        "audio h/s",
        "plain loop files/s",
        "pipeline / plain loop",
        "labels that differ",
        "without a label",
        "n",
    )
    return [Table("The same recordings in several formats", (*columns, *rest), rows)]


def _resume(result: Document) -> list[Table]:
    columns = ("files", "run", "backend", "scored", "reused", "seconds", "RSS", "check, s per 1,000 files", "n")
    rows = [
        (
            *(str(s["files"]), s["step"], s["backend"], str(s["scored"]), str(s["reused"])),
            *(f"{s['seconds']['median']:.2f}", _mib(s["peak_rss"])),
            "–" if s["looking"] is None else f"{s['looking']:.3f}",
            str(s["seconds"]["n"]),
        )
        for s in result["steps"]
    ]
    return [Table("Whole processes, from start to exit", columns, rows)]


_CPU = ("engine", "decode", "pipeline")
"""Stages whose CPU time per clip is shown."""


def _peers(result: Document) -> list[Table]:
    # Results from before operations were counted have no shares.
    shares = ("of peak",) if result.get("flops_per_clip") else ()
    first = f"× {next((c['label'] for c in result['candidates']), 'the first')}"
    columns = ("engine", "batch", "p50 ms", "p95 ms", "CoV", "clips/s", *shares, first, "max Δp", "n")
    rows = [
        (
            *(c["label"], str(c["batch"]), _ms(c["seconds"]["median"]), _ms(c["seconds"]["p95"])),
            *(f"{c['seconds']['cov']:.1%}", f"{c['clips_per_second']:.1f}"),
            *(("–" if (share := peer_share(result, c)) is None else f"{share:.0%}") for _ in shares),
            *(f"{c['speedup']:.2f}", f"{c['max_difference']:.1e}", str(c["seconds"]["n"])),
        )
        for c in result["candidates"]
    ]
    # Results from before optimum was compared have no graphs.
    graphs = [(g["maker"], g["begins"], str(g["nodes"]), str(g["opset"])) for g in result.get("graphs", [])]
    what = "Peers" if result["kind"] == "peers" else "In turns"
    found = [Table(f"{what}, branch {result['target']} of {result['model']}", columns, rows)]
    if graphs:
        found.append(Table("The ONNX graphs", ("exported by", "input", "nodes", "opset"), graphs))
    return [*found, *_peaks(result)]


def _end_to_end(result: Document) -> list[Table]:
    columns = ("engine", "batch", "files", "p50 s", "CoV", "files/s")
    loops = list(result["candidates"][0]["speedup"])
    rows = [
        (
            *(c["label"], str(c["batch"]), str(c["files"]), f"{c['seconds']['median']:.3g}"),
            *(f"{c['seconds']['cov']:.1%}", f"{c['files_per_second']:.2f}"),
            *(f"{c['speedup'][loop]:.2f}" for loop in loops),
            *(str(c["differing"]), str(c["unlabelled"]), f"{c['max_difference']:.1e}", str(c["seconds"]["n"])),
        )
        for c in result["candidates"]
    ]
    rest = (*(f"× {loop} loop" for loop in loops), "labels that differ", "without a label", "max Δp", "n")
    return [Table(f"From files to a table of labels, {result['model']}", (*columns, *rest), rows)]


def _startup(result: Document) -> list[Table]:
    rows = [
        (c["command"], *(f"{c['seconds'][name]:.3f}" for name in ("median", "p95")), _mib(c["peak_rss"]))
        for c in result["commands"]
    ]
    return [Table("From process start to exit", ("command", "median s", "p95 s", "RSS"), rows)]


def _training(result: Document) -> list[Table]:
    columns = ("branch", "size", "parameters", "trained", "batch", "clips/s", "epoch of 1,147 clips, s", "CoV")
    rows = [
        (
            *(f"{b['branch']} {b['precision']}, {b['device']}", b["size"], f"{b['parameters'] / 1e6:.2f} M"),
            *(f"{b['trained'] / 1e6:.2f} M", str(b["batch"]), f"{b['clips_per_second']:.1f}"),
            *(f"{b['epoch_seconds']:.1f}", f"{b['seconds']['cov']:.1%}", f"{b['encode_clips_per_second']:.1f}"),
            *(_mib(b["peak_rss"]), str(b["seconds"]["n"])),
        )
        for b in result["branches"]
    ]
    return [Table("Training", (*columns, "features, clips/s", "RSS", "n"), rows)]


def _smoke(result: Document) -> list[Table]:
    rows = [(name, f"{value:.3f}") for name, value in result["ratios"].items()]
    return [Table("Ratios of `bench smoke`", ("ratio", "value"), rows)]


def _sweep(result: Document) -> list[Table]:
    return [*_latency(result), *(_throughput({**result, "measurements": t}) if (t := result["throughput"]) else [])]


def _adaptation(result: Document) -> list[Table]:
    """One table for each mix of labels: UA (accuracy) by corpus and method, means over draws."""
    found = []
    for shares in dict.fromkeys(row["shares"] for row in result["corpora"]):
        rows = {(row["corpus"], row["method"]): row for row in result["corpora"] if row["shares"] == shares}
        corpora, methods = (list(dict.fromkeys(key[place] for key in rows)) for place in (0, 1))
        cells = [
            (
                *(corpus, str(next(row["rows"] for (name, _), row in rows.items() if name == corpus))),
                _ua_and_accuracy(rows[corpus, methods[0]]["draws"], "_before"),
                *(
                    _ua_and_accuracy(rows[corpus, method]["draws"]) if (corpus, method) in rows else "–"
                    for method in methods
                ),
            )
            for corpus in corpora
        ]
        found.append(Table(f"UA (accuracy), {shares}", ("corpus", "rows", "unadapted", *methods), cells))
    return [*found, _few_labels(result)]


def _ua_and_accuracy(draws: dict[str, list[float]], suffix: str = "") -> str:
    ua, accuracy = (100 * sum(values) / len(values) for values in (draws[f"{n}{suffix}"] for n in ("ua", "accuracy")))
    return f"{ua:.1f} ({accuracy:.1f})"


def _few_labels(result: Document) -> Table:
    """How often labelled rows helped and hurt, on the rows that were not labelled."""
    columns = (
        "corpus",
        "rows are",
        "method",
        "draws",
        "mean change of UA",
        "worst",
        "best",
        "draws with lower UA",
        "ECE before",
        "ECE",
        "used",
    )
    rows = []
    for row in result["corpora"]:
        outcomes = row["draws"]["outcome"]
        if set(outcomes) == {"adapted"}:
            continue
        change = [100 * (b - a) for a, b in zip(row["draws"]["ua_before"], row["draws"]["ua"], strict=True)]
        used = ", ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in dict.fromkeys(outcomes))
        figures = (sum(change) / len(change), min(change), max(change))
        rows.append(
            (
                *(row["corpus"], row["shares"], row["method"], str(len(change))),
                *(f"{value:+.1f}" for value in figures),
                str(sum(value < 0 for value in change)),
                *(f"{sum(values) / len(values):.3f}" for values in (row["draws"]["ece_before"], row["draws"]["ece"])),
                used,
            )
        )
    return Table("Labelled rows, draw by draw", columns, rows)


def peer_share(result: Document, candidate: Row) -> float | None:
    """A peer's operations per second over the fastest matrix product in its precision, of the same run.

    None: the result is from before operations were counted, or nothing has a product in that precision there.
    """
    flops, kind = result.get("flops_per_clip"), (candidate["label"].rpartition(" ")[2], candidate["device"])
    rates = [peak["flops"] for peak in result.get("peaks", []) if (peak["precision"], peak["device"]) == kind]
    return candidate["clips_per_second"] * flops / max(rates) if flops and rates else None


def _peaks(result: Document) -> Sequence[Table]:
    rows = [
        (p["library"], p["precision"], p["device"], str(p["size"]), f"{p['flops'] / 1e9:,.0f}")
        for p in result.get("peaks", [])
    ]
    columns = ("library", "precision", "device", "matrix", "GFLOP/s")
    return [Table("The machine's own matrix product, same run", columns, rows)] if rows else []


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


_TABLES: dict[str, Callable[[Document], list[Table]]] = {
    "latency": _latency,
    "throughput": _throughput,
    "formats": _formats,
    "resume": _resume,
    "peers": _peers,
    "precisions": _peers,
    "end_to_end": _end_to_end,
    "startup": _startup,
    "training": _training,
    "smoke": _smoke,
    "gpu_sweep": _sweep,
    "adaptation": _adaptation,
}
