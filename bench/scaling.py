"""What results mean for 100 million clips: core-hours, and cores for a day; `bench report` puts it on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.environment import measured_on
from bench.results import Document
from bench.tables import Table, markdown

CLIPS = 100_000_000
HOURS = 24
HEADER = ("what", "model", "engine", "clips/s per core", "core-hours", f"cores for {HOURS} h", "load before", "result")


@dataclass(frozen=True)
class Rate:
    """How fast the cores of one machine did one thing."""

    what: str
    model: str
    engine: str
    clips_per_second: float
    cores: int
    load: float
    """Load average of the minute before: near 0 on a machine that does nothing else."""
    result: str

    @property
    def per_core(self) -> float:
        """Clips per second and core."""
        return self.clips_per_second / self.cores

    @property
    def core_hours(self) -> float:
        """For `CLIPS` clips."""
        return CLIPS / self.per_core / 3600


def rates(results: Iterable[tuple[str, Document]]) -> list[Rate]:
    """For each kind of measurement, model and engine on a CPU, the rate of the fastest batch size."""
    best: dict[tuple[str, str, str], Rate] = {}
    for path, result in results:
        for rate in _rates(Path(path).name, result):
            key = (rate.what, rate.model, rate.engine)
            best[key] = max(rate, best.get(key, rate), key=lambda each: each.per_core)
    return list(best.values())


def _rates(name: str, result: Document) -> Iterator[Rate]:
    environment = result["environment"]
    cores, load = environment["cpu"]["cores_usable"], environment["load_average_at_start"][0]
    for row in result.get("measurements", []):
        if row["device"] != "cpu":
            continue
        engine = f"{row['backend']} {row['precision']}"
        if result["kind"] == "throughput":
            yield Rate("files to rows", row["bundle"], engine, row["files_per_second"], cores, load, name)
            yield Rate("decoding alone", "any", "none", row["decode_files_per_second"], cores, load, name)
        elif result["kind"] == "latency" and row["target"] == "fused":
            yield Rate("engine", row["bundle"], engine, row["clips_per_second"], cores, load, name)
    if result["kind"] != "peers":  # end-to-end has candidates, too, but they are timed on files
        return
    for row in result["candidates"]:
        if row["label"].startswith(("onnxruntime", "openvino")) and row["device"] == "cpu":
            model = f"{name.split('-')[1]}, {row['target']} branch alone"
            yield Rate("engine", model, row["label"], row["clips_per_second"], cores, load, name)


def scaling_table(results: Sequence[tuple[str, Document]]) -> str:
    """The rates and what follows from them, as Markdown, and the machines that they are of."""
    ordered = sorted(rates(results), key=lambda each: (each.what, each.model, -each.per_core))
    rows = [
        (
            *(rate.what, rate.model, rate.engine, f"{rate.per_core:.1f}", f"{rate.core_hours:,.0f}"),
            *(f"{rate.core_hours / HOURS:,.0f}", f"{rate.load:.1f}", f"`{rate.result}`"),
        )
        for rate in ordered
    ]
    table = markdown(Table("", HEADER, rows))
    used = {rate.result for rate in ordered}
    sources = [(f"`{Path(path).name}`", result["environment"]) for path, result in results if Path(path).name in used]
    return f"{table}\n\n{measured_on(sources)}" if sources else table
