"""What a run did: as numbers, as lines for people, and as JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ser_batch.bundle.trust import Trust
from ser_batch.formats import described
from ser_batch.output.schema import STATUSES
from ser_batch.pipeline.progress import Progress
from ser_batch.text import printable, terminal_safe

STAGE_NAMES = {"decode": "decoding", "engine": "the engine", "write": "writing"}


@dataclass(frozen=True)
class RunSummary:
    """The rows are those of the whole table; times and rates are those of this process. `print` shows it as lines."""

    model: str
    """Bundle, runtime, precision, device and why they were chosen, in words."""
    out: str
    """The output, as it was given."""
    trust: str
    """What the bundle states of how well it does on corpora that it was not trained on."""
    rows: int
    statuses: dict[str, int]
    """Status -> rows, in the order of `STATUSES`."""
    labels: dict[str, int]
    """Label -> rows, in the order of the bundle."""
    narrow: int
    """Rows with a prediction whose bandwidth is below `narrow_below`."""
    narrow_below: float
    """Hz: what the bundle was trained on has more, or, where it does not say, a telephone has less."""
    clipped: int
    """Rows with a prediction in which a thousandth of the samples or more is at full scale."""
    confident: int | None
    """Rows whose score is `confident_from` or more; None: the bundle names no such score."""
    confident_from: float | None
    audio_hours: float
    """Hours of sound in the rows that are no errors: what was scored, not what the recordings last."""
    errors: list[tuple[str, str]]
    """(file, reason) of the first failures."""
    reused: int
    """Recordings whose rows an earlier run had made."""
    unlisted: int
    """Recordings that an earlier run made rows of, and that this one was not given; their rows are kept."""
    left_out: dict[str, int]
    """Ending -> files of the folders searched that were not taken, since neither it nor their content says audio."""
    seconds: float
    """Wall time."""
    clips_per_second: float
    """Rows made per second of wall time."""
    real_time_factor: float
    """Seconds of sound scored per second of wall time."""
    bottleneck: tuple[str, float]
    """The stage that took the most of the time, and its share."""
    peak_rss: int
    """Largest resident memory of this process until now, in bytes; the decode processes are not in it."""

    @property
    def failures(self) -> int:
        """Rows with an error."""
        return self.statuses["error"]

    @property
    def clips(self) -> int:
        """Rows with a prediction."""
        return self.statuses["ok"]

    def __str__(self) -> str:
        return format_summary(self)


def summarise(progress: Progress, labels: tuple[str, ...], model: str, out: str, trust: Trust) -> RunSummary:
    """Sum up what was counted on the way; `labels` gives their order."""
    seconds, output = progress.seconds, progress.output
    return RunSummary(
        model=model,
        out=out,
        trust=trust.brief,
        rows=output.statuses.total(),
        statuses={status: output.statuses[status] for status in STATUSES},
        labels={label: output.labels[label] for label in labels},
        narrow=output.narrow,
        narrow_below=output.narrow_below,
        clipped=output.clipped,
        confident=None if output.confident_from is None else output.confident,
        confident_from=output.confident_from,
        audio_hours=output.seconds / 3600,
        errors=list(output.errors),
        reused=progress.reused,
        unlisted=progress.unlisted,
        left_out=dict(progress.left_out),
        seconds=seconds,
        clips_per_second=progress.rows / seconds,
        real_time_factor=progress.seconds_scored / seconds,
        bottleneck=progress.bottleneck,
        peak_rss=peak_rss(),
    )


def peak_rss() -> int:
    """Largest resident memory of this process until now, in bytes; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def format_summary(summary: RunSummary) -> str:
    """Names and values, a line each."""
    stage, share = summary.bottleneck
    counts = ", ".join(f"{label} {count}" for label, count in summary.labels.items() if count)
    rows = [
        ("model", summary.model),
        ("clips", f"{summary.clips}"),
        ("failures", f"{summary.failures}"),
        *((status, f"{summary.statuses[status]}") for status in ("silent", "short") if summary.statuses[status]),
        *([("reused", f"{summary.reused} recordings of an earlier run")] if summary.reused else []),
        *(
            [("unlisted", f"{summary.unlisted} of an earlier run: kept, though not among AUDIO now")]
            if summary.unlisted
            else []
        ),
        *(
            [("left out", f"{terminal_safe(described(summary.left_out))} in the folders: no audio")]
            if summary.left_out
            else []
        ),
        *([("sound", _sound(summary))] if summary.narrow or summary.clipped else []),
        ("audio", f"{summary.audio_hours:.3f} hours scored"),
        ("labels", counts or "none"),
        ("trust", f"{terminal_safe(summary.trust)}; ser-batch info says more"),
        *(
            [("sure", f"{summary.confident} of {summary.clips} clips: a score of {summary.confident_from:g} or more")]
            if summary.confident is not None
            else []
        ),
        ("time", f"{summary.seconds:.2f} s, {share:.0%} of it in {STAGE_NAMES[stage]}"),
        ("rate", f"{summary.clips_per_second:.1f} clips/s, {summary.real_time_factor:.0f} x real time"),
        *(
            [("memory", f"{summary.peak_rss / 2**20:.0f} MiB at most, decode processes apart")]
            if summary.peak_rss
            else []
        ),
        ("output", terminal_safe(summary.out)),
    ]
    return "\n".join(f"{name:<9} {value}" for name, value in rows)


def _sound(summary: RunSummary) -> str:
    """What of the recordings the model may not be made for."""
    narrow = f"{summary.narrow} rows with nothing above {summary.narrow_below / 1000:.3g} kHz"
    said = ([narrow] if summary.narrow else []) + ([f"{summary.clipped} clipped"] if summary.clipped else [])
    return f"{', '.join(said)}: see the columns `bandwidth` and `clipped`"


def failure_lines(summary: RunSummary, paths: Mapping[str, str]) -> list[str]:
    """The first failures, each with its path, and how many more there are.

    Args:
        paths: name -> path of recordings whose name is not the whole path.
    """
    # Names are the users' own, and may hold what would move the cursor.
    lines = [
        f"failed: {terminal_safe(printable(paths.get(file, file)))}: {terminal_safe(reason)}"
        for file, reason in summary.errors
    ]
    if summary.failures > len(summary.errors):
        lines.append(f"failed: {summary.failures - len(summary.errors)} more, see column `error`")
    return lines


def summary_json(summary: RunSummary) -> dict[str, Any]:
    """The same for `--json`."""
    stage, share = summary.bottleneck
    values = asdict(summary) | {"bottleneck": stage, "bottleneck_share": round(share, 4)}
    return {"event": "end", **values}
