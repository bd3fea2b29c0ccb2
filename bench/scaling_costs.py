"""What the process that lists and writes needs per clip, in bytes and CPU time: `python -m bench.scaling_costs [N]`.

Neither depends on how busy the machine is. The rows are made up: nothing is decoded or scored.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ser_batch.arrow import strings
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import Segmentation
from ser_batch.engines.scorer import Scores
from ser_batch.output.destination import Output
from ser_batch.output.parts import Parts
from ser_batch.output.rows import RowIndex, Run
from ser_batch.output.schema import record_batch, schema
from ser_batch.pipeline.ray.actor import Opened
from ser_batch.pipeline.ray.tasks import NUMBER, Results, Tasks
from ser_batch.recordings.recording import Recording, Segment
from ser_batch.recordings.table import Recordings, roots

NAME = "2026/11/22/session-0001/recording-{:09}.wav"
TASK = 512
"""Rows that an actor sends back at a time."""


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def bytes_each(count: int, make: Callable[[], Any]) -> float:
    """Bytes per clip of what `make` makes of `count` clips."""
    before = resident()
    made = make()
    grown = resident() - before
    del made
    return grown / count


def memory(count: int) -> dict[str, float]:
    """Bytes per clip, each measured without the others in memory."""
    names = range(count)
    before = resident()
    listing = bytes_each(count, lambda: listed(sorted(NAME.format(n).encode() for n in names)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "listing": listing,
        "while listing": (peak - before) / count,
        "row index": bytes_each(count, lambda: RowIndex(Run(NAME.format(n), n, 1, (1, 1), False) for n in names)),
        "tasks": bytes_each(count, lambda: Tasks(Recording(f"/mnt/{NAME.format(n)}", NAME.format(n)) for n in names)),
    }


def listed(names: list[bytes]) -> Recordings:
    """What a run holds of its recordings."""
    columns = {"name": strings(names), "root": roots(np.zeros(len(names)), ["/mnt"])}
    return Recordings(columns)


def results_of_actors(bundle: Bundle, table: pa.Schema, recordings: list[Recording]) -> Iterator[pa.Table]:
    """The tables that actors would send back."""
    chance = np.random.default_rng(0)
    known = (0.0, 3.0, 3.0, 48_000, 1, -20.0)
    for first in range(0, len(recordings), TASK):
        rows = [Segment(each, (1, 1), "ok", None, True, *known) for each in recordings[first : first + TASK]]
        fused, *branches = chance.random((1 + len(bundle.manifest.branches), len(rows), len(bundle.labels)), np.float32)
        named = {branch.name: values for branch, values in zip(bundle.manifest.branches, branches, strict=True)}
        made = pa.Table.from_batches([record_batch(table, bundle.labels, rows, Scores(fused, named))])
        yield made.append_column(NUMBER, pa.array(np.arange(first, first + len(rows))))


def cpu(count: int, folder: Path) -> dict[str, float]:
    """Microseconds of CPU time per clip of what a driver on Ray does, without Ray's own part."""
    bundle = load_bundle()
    table = schema(bundle, Opened("onnxruntime", "fp32", "cpu", ""), Segmentation(bundle.manifest.clip))
    recordings = [Recording(f"/mnt/{NAME.format(n)}", NAME.format(n)) for n in range(count)]
    started = time.process_time()
    tasks = Tasks(recordings)
    tasks.divided(64, long=False)
    spent = {"pack": time.process_time() - started, "take": 0.0, "write": 0.0}
    results = Results(tasks, table, None)
    parts = Parts(Output.parse(folder / "out.parquet"), table, [recording.key for recording in recordings])
    for result in results_of_actors(bundle, table, recordings):
        started = time.process_time()
        scored = results.take(result)
        spent["take"] += time.process_time() - started
        started = time.process_time()
        if scored is not None:
            parts.append(scored.batch)
        spent["write"] += time.process_time() - started
    started = time.process_time()
    parts.finish()
    spent["compact"] = time.process_time() - started
    return {name: seconds / count * 1e6 for name, seconds in spent.items()}


if __name__ == "__main__":
    clips = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print("bytes per clip:", {name: round(value, 1) for name, value in memory(clips).items()})
    with tempfile.TemporaryDirectory() as scratch:
        print("CPU µs per clip:", {name: round(value, 1) for name, value in cpu(clips // 10, Path(scratch)).items()})
