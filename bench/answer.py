"""The table that docs/benchmarks.md opens with: which runtime to take, made of several results."""

from __future__ import annotations

import re
from pathlib import Path

from bench.environment import measured_on
from bench.latency import CLOSED
from bench.results import Document, Results
from bench.tables import Table, markdown, peer_share
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines.protocol import BACKENDS
from ser_batch.machine import short_commit

_Column = tuple[int, str, dict[str, str]]
"""(place, title, engine → cell)."""
_OF_PRODUCT = "of the machine's product"
_SHARE, _CLIPS, _FILES, _PARQUET, _ERROR = range(5)


def answer(results: Results) -> str:
    """Which runtime to take: every engine of the results of `bench peers`, the fastest first, in one table.

    First comes each engine's share of the machine's own matrix product. Beside the engines alone stand files to labels
    (`bench end-to-end`), files to Parquet (the result of `bench throughput` with the most files) and that bundle's
    share of the product (`bench latency`). What `ser-batch run` offers is in bold.
    """
    chosen = _chosen(results)
    if all(result["kind"] != "peers" for _, result in chosen):
        return "No result yet: `bench peers --size base --json peers.json` makes one."
    columns = [column for _, result in chosen for column in _RUNTIME_COLUMNS[result["kind"]](result)]
    columns = sorted((column for column in columns if column[2]), key=lambda column: column[0])
    engines = list(dict.fromkeys(label for _, _, cells in columns for label in cells))
    fastest = next(cells for order, _, cells in columns if order == _CLIPS)
    engines.sort(key=lambda label: -float(fastest.get(label, "0")))
    rows = [
        (f"**{label}**" if label.split()[0] in BACKENDS else label, *(cells.get(label, "–") for _, _, cells in columns))
        for label in engines
    ]
    table = Table("Which runtime to take", ("engine", *(title for _, title, _ in columns)), rows)
    where = measured_on((f"`{Path(name).name}`{_origin(result)}", result["environment"]) for name, result in chosen)
    return f"{markdown(table)}\n\n{where}"


def _chosen(results: Results) -> Results:
    """The results that the answer is made of."""
    chosen = [(name, result) for name, result in results if result["kind"] in ("peers", "end_to_end")]
    files = [(name, result) for name, result in results if result["kind"] == "throughput"]
    most = sorted(files, key=lambda each: -max(m["files"] for m in each[1]["measurements"]))[:1]
    bundles = {m["bundle"] for _, result in most for m in result["measurements"]}
    alone = [
        (name, result)
        for name, result in results
        if result["kind"] == "latency" and bundles & {m["bundle"] for m in result["measurements"]}
    ]
    return chosen + most + alone[:1]


def _origin(result: Document) -> str:
    """When, of which code, and the products in GFLOP/s that its engines' shares are of."""
    environment, peaks = result["environment"], result.get("peaks", [])
    used = {c["label"].rpartition(" ")[2] for c in result.get("candidates", [])}
    used |= {m["precision"] for m in result.get("measurements", [])}
    best = {p["precision"]: max(q["flops"] for q in peaks if q["precision"] == p["precision"]) for p in peaks}
    products = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in best.items() if name in used)
    said = f", product in GFLOP/s: {products}" if products else ""
    return f", {environment['time'][:10]}, commit {short_commit(environment['git'])}{said}"


def _peer_columns(result: Document) -> list[_Column]:
    batch = max(c["batch"] for c in result["candidates"])
    model = re.sub(r"^random-(\w+)-\w+$", r"\1 size", result["model"])
    found = [c for c in result["candidates"] if c["batch"] == batch]
    shares = {c["label"]: _share(share, c["label"].split()[-1]) for c in found if (share := peer_share(result, c))}
    return [
        (_SHARE, f"{model}, batch {batch}: {_OF_PRODUCT}", shares),
        (_CLIPS, f"{model}, batch {batch}: clips/s", {c["label"]: f"{c['clips_per_second']:.1f}" for c in found}),
        (_CLIPS, "× torch eager fp32", {c["label"]: f"{c['speedup']:.2f}" for c in found}),
        (_ERROR, f"{model}: max Δp", {c["label"]: f"{c['max_difference']:.0e}" for c in found}),
    ]


def _file_columns(result: Document) -> list[_Column]:
    model = re.sub(r"^random-(\w+)-\w+$", r"\1 size", result["model"])
    found = {c["label"].partition(",")[0]: c for c in result["candidates"]}
    loops = list(result["candidates"][0]["speedup"])
    return [
        (_FILES, f"{model}, files to labels: files/s", {n: f"{c['files_per_second']:.1f}" for n, c in found.items()}),
        *((_FILES, f"× {loop} loop", {n: f"{c['speedup'][loop]:.2f}" for n, c in found.items()}) for loop in loops),
    ]


def _parquet_columns(result: Document) -> list[_Column]:
    found = result["measurements"]
    title = f"{found[0]['bundle']}, {found[0]['files']:,} files to Parquet: files/s"
    return [(_PARQUET, title, {f"{m['backend']} {m['precision']}": f"{m['files_per_second']:.0f}" for m in found})]


def _latency_columns(result: Document) -> list[_Column]:
    """Of the batch size at which the fastest engine is fastest."""
    found = [m for m in result["measurements"] if (m["target"], m["mode"]) == (FUSED, CLOSED) and m["peak_share"]]
    if not found:
        return []
    batch = max(found, key=lambda m: m["clips_per_second"])["batch"]
    at = [m for m in found if m["batch"] == batch]
    cells = {f"{m['backend']} {m['precision']}": _share(m["peak_share"], m["precision"]) for m in at}
    return [(_SHARE, f"{found[0]['bundle']}, batch {batch}: {_OF_PRODUCT}", cells)]


def _share(share: float, precision: str) -> str:
    return f"{share:.0%} of {precision}"


_RUNTIME_COLUMNS = {
    "peers": _peer_columns,
    "end_to_end": _file_columns,
    "throughput": _parquet_columns,
    "latency": _latency_columns,
}
