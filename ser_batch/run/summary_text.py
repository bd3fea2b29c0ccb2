"""A run's summary as lines for people, and as JSON for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ser_batch.run.summary import RunSummary
from ser_batch.text import terminal_safe

STAGES = {"decode": "decoding", "engine": "the engine", "write": "writing"}


def format_summary(summary: RunSummary, out: str, model: str) -> str:
    """Names and values, a line each."""
    stage, share = summary.bottleneck
    counts = ", ".join(f"{label} {count}" for label, count in summary.labels.items() if count)
    rows = [
        ("model", model),
        ("clips", f"{summary.clips}"),
        ("failures", f"{summary.failures}"),
        *((status, f"{summary.statuses[status]}") for status in ("silent", "short") if summary.statuses[status]),
        *([("reused", f"{summary.reused} recordings of an earlier run")] if summary.reused else []),
        *(
            [("unlisted", f"{summary.unlisted} of an earlier run: kept, though not among AUDIO now")]
            if summary.unlisted
            else []
        ),
        ("audio", f"{summary.audio_hours:.3f} hours heard"),
        ("labels", counts or "none"),
        ("time", f"{summary.seconds:.2f} s, {share:.0%} of it in {STAGES[stage]}"),
        ("rate", f"{summary.clips_per_second:.1f} clips/s, {summary.real_time_factor:.0f} x real time"),
        ("memory", f"{summary.peak_rss / 2**20:.0f} MiB at most, decode processes apart"),
        ("output", terminal_safe(out)),
    ]
    return "\n".join(f"{name:<9} {value}" for name, value in rows)


def failure_lines(summary: RunSummary) -> list[str]:
    """The first failures, and how many more there are."""
    # Names are the users' own, and may hold what would move the cursor.
    lines = [f"failed: {terminal_safe(file)}: {terminal_safe(reason)}" for file, reason in summary.errors]
    if summary.failures > len(summary.errors):
        lines.append(f"failed: {summary.failures - len(summary.errors)} more, see column `error`")
    return lines


def summary_json(summary: RunSummary, out: str, model: str) -> dict[str, Any]:
    """The same for `--json`."""
    stage, share = summary.bottleneck
    values = asdict(summary) | {"bottleneck": stage, "bottleneck_share": round(share, 4), "out": out, "model": model}
    return {"event": "end", **values}
