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

from ser_batch.audio.hearing import Hearing
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.decode.source import Decoded, Segment
from ser_batch.distributed.actor import NUMBER, Opened
from ser_batch.distributed.answers import Answers
from ser_batch.distributed.parcels import Parcels
from ser_batch.engines.scorer import Scores
from ser_batch.output.destination import Output
from ser_batch.output.parts import Parts
from ser_batch.output.predictions import record_batch, schema
from ser_batch.output.row_index import RowIndex, Run
from ser_batch.recordings.names import Names
from ser_batch.recordings.sources import Source

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
    listing = bytes_each(count, lambda: Names(sorted(NAME.format(n).encode() for n in names)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "listing": listing,
        "while listing": (peak - before) / count,
        "row index": bytes_each(count, lambda: RowIndex(Run(NAME.format(n), n, 1, (1, 1), False) for n in names)),
        "parcels": bytes_each(count, lambda: Parcels(Source(f"/mnt/{NAME.format(n)}", NAME.format(n)) for n in names)),
    }


def answers(bundle: Bundle, table: pa.Schema, sources: list[Source]) -> Iterator[pa.Table]:
    """The tables that actors would send back."""
    chance = np.random.default_rng(0)
    segment = Segment(0.0, 3.0, 3.0, 48_000, 1, -20.0)
    for first in range(0, len(sources), TASK):
        rows = [Decoded(source, (1, 1), segment, "ok") for source in sources[first : first + TASK]]
        fused, *branches = chance.random((1 + len(bundle.manifest.branches), len(rows), len(bundle.labels)), np.float32)
        named = {branch.name: values for branch, values in zip(bundle.manifest.branches, branches, strict=True)}
        made = pa.Table.from_batches([record_batch(table, bundle.labels, rows, Scores(fused, named))])
        yield made.append_column(NUMBER, pa.array(np.arange(first, first + len(rows))))


def cpu(count: int, folder: Path) -> dict[str, float]:
    """Microseconds of CPU time per clip of what a driver on Ray does, without Ray's own part."""
    bundle = load_bundle()
    table = schema(bundle, Opened("onnxruntime", "fp32", "cpu", ""), Hearing(bundle.manifest.clip))
    sources = [Source(f"/mnt/{NAME.format(n)}", NAME.format(n)) for n in range(count)]
    started = time.process_time()
    parcels = Parcels(sources)
    parcels.tasks(64, long=False)
    spent = {"pack": time.process_time() - started, "take": 0.0, "write": 0.0}
    taken, parts = Answers(parcels, table, None), Parts(Output.parse(folder / "out.parquet"), table)
    for answer in answers(bundle, table, sources):
        started = time.process_time()
        made = taken.take(answer)
        spent["take"] += time.process_time() - started
        started = time.process_time()
        if made is not None:
            parts.append(made.batch)
        spent["write"] += time.process_time() - started
    started = time.process_time()
    parts.finish([source.key for source in sources])
    spent["compact"] = time.process_time() - started
    return {name: seconds / count * 1e6 for name, seconds in spent.items()}


if __name__ == "__main__":
    clips = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print("bytes per clip:", {name: round(value, 1) for name, value in memory(clips).items()})
    with tempfile.TemporaryDirectory() as scratch:
        print("CPU µs per clip:", {name: round(value, 1) for name, value in cpu(clips // 10, Path(scratch)).items()})
