"""The table of a bundle's robustness: as JSON, kept with the results, and as Markdown made from that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import InputError
from ser_batch.files import write_json
from ser_batch.machine import git_commit, package_version, processor, short_commit
from ser_batch.strict_json import decode, parse
from ser_batch.text import markdown_table
from training.robustness.measure import BELOW, FALL, MOVED, Bound, Row

ROBUSTNESS = "robustness"
"""Folder of the reports among the results, and region of a page."""
VERSIONED = ("ser-batch", "onnxruntime", "numpy", "soundfile", "soxr", "av")
SAID = {
    FALL: "falls by {value:.1f}, {limit:g} allowed",
    BELOW: "{value:.1f} below the context branch, {limit:g} allowed",
    MOVED: "a probability moves by {value:.2g}, {limit:g} allowed",
}
"""What is said of a bound that is not kept."""


@dataclass(frozen=True)
class Report:
    """What was measured of one bundle on one set of recordings."""

    bundle: str
    """Its id."""
    backend: str
    corpus: dict[str, Any]
    """Name, recordings and sha256, as `Corpus.describe` gives them."""
    part: str
    """Which of the corpus' recordings."""
    clips: int
    labels: tuple[str, ...]
    """Of the bundle."""
    noises: dict[str, str]
    """What each kind of noise is made of."""
    rows: tuple[Row, ...]
    measured: dict[str, Any]
    """Machine, versions, commit, command, date."""

    @property
    def not_kept(self) -> list[tuple[Row, Bound]]:
        """The bounds that are not kept, and where."""
        return [(row, bound) for row in self.rows for bound in row.bounds if not bound.kept]


def measured_by(command: str, seconds: float) -> dict[str, Any]:
    """Where and when something was measured that needs no torch."""
    return {
        "processor": processor(),
        "packages": {name: package_version(name) for name in VERSIONED},
        "git": git_commit(),
        "command": command,
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def write(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(report))


def read(path: Path) -> Report:
    """A report from its JSON; InputError if it cannot be read, or is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read", got=error.strerror, expected="what ser-train robustness wrote"
        ) from error
    return decode(Report, parse(raw, str(path), InputError), str(path), InputError, complete=True)


def read_all(results: Path) -> list[Report]:
    """The reports among a folder of results, by file name."""
    return [read(path) for path in sorted((results / ROBUSTNESS).glob("*.json"))]


def markdown(report: Report) -> str:
    """The table, what it was made of, and the bounds that are not kept, as Markdown."""
    branches = [name for name in report.rows[0].outputs if name != FUSED]
    heading = ["", "fused", "change", "UA", "labels changed", "largest change of a probability"]
    heading += [text for name in branches for text in (name, "UA")] + ["bounds"]
    rows = [_cells(row, report.rows[0], branches) for row in report.rows]
    kept = sum(bound.kept for row in report.rows for bound in row.bounds)
    total = kept + len(report.not_kept)
    noises = "; ".join(f"{kind}: {made}" for kind, made in report.noises.items())
    return "\n\n".join(
        [
            f"`{report.bundle}` on {report.clips} clips of {report.corpus['name']}, {report.part}. Accuracy and UA in "
            f"per cent, changes in points. {kept} of {total} bounds are kept.",
            markdown_table(heading, rows),
            f"Noise: {noises}. SNR by the mean power of a whole recording. Codecs are FFmpeg's at the stated bit rate.",
            f"`{report.measured['command']}`, {report.measured['date']}, commit "
            f"{short_commit(report.measured['git'])}, {report.backend}.",
        ]
    )


def _cells(row: Row, clean: Row, branches: list[str]) -> list[str]:
    fused = row.outputs[FUSED]
    change = 100 * (fused.accuracy - clean.outputs[FUSED].accuracy)
    cells = [row.name, f"{100 * fused.accuracy:.1f}", "" if row is clean else f"{change:+.1f}".replace("-", "−")]
    cells += [f"{100 * fused.ua:.1f}", str(fused.changed), f"{max(o.moved for o in row.outputs.values()):.2g}"]
    cells += [f"{100 * value:.1f}" for name in branches for value in (row.outputs[name].accuracy, row.outputs[name].ua)]
    broken = [SAID[b.what].format(value=b.value, limit=b.limit) for b in row.bounds if not b.kept]
    return [*cells, "not kept: " + "; ".join(broken) if broken else "kept" if row.bounds else ""]
