"""The scored windows of a long recording to its one row.

Probabilities, the fusion's and each branch's, and the embedding are the mean over the windows that were scored, each
weighted by its seconds of sound, so that a last window of a moment counts as little as it holds. Silent windows are
left out. Memory holds the sums of one recording, not its windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.engines.scorer import Scores
from ser_batch.recordings.recording import Segment

Scored = tuple[list[Segment], Scores]
"""Segments in order, and a row of scores for each whose status is "ok"."""
PRECEDENCE = ("error", "ok", "silent", "short")
"""Which status of its windows a recording takes on."""


def one_row_each(scored: Iterator[Scored], *, split: bool) -> Iterator[Scored]:
    """Replace the windows of each long recording by one segment; what is no such window passes as it is.

    Args:
        split: whether the channels of a recording have a segment each.
    """
    pending: dict[int | None, _Sum] = {}
    for segments, scores in scored:
        if not pending and not any(segment.is_window for segment in segments):
            yield segments, scores
            continue
        out: list[Segment] = []
        rows: list[Scores] = []
        row = 0
        for segment in segments:
            own = _rows(scores, row, row + (segment.status == "ok"))
            row += segment.status == "ok"
            if segment.is_window:
                pending.setdefault(segment.channel if split else None, _Sum()).add(segment, own)
                if segment.last:
                    merged = [each.result(last=False) for each in pending.values()]
                    merged[-1] = (merged[-1][0]._replace(last=True), merged[-1][1])
                    out += [each for each, _ in merged]
                    rows += [each for _, each in merged]
                    pending.clear()
            else:
                # An error after windows is what the recording comes to.
                pending.clear()
                out.append(segment)
                rows.append(own)
        if out:
            yield out, concatenated(rows)


@dataclass
class _Span:
    """Sums over windows."""

    start: float = math.inf
    end: float = 0.0
    seconds: float = 0.0
    energy: float = 0.0
    bandwidth: float | None = None
    clipped: float = 0.0
    """Share of samples, times seconds."""
    channel: int | None = None

    def add(self, segment: Segment, seconds: float) -> None:
        """Count a window in."""
        assert segment.start is not None and segment.end is not None and segment.level is not None
        self.start, self.end = min(self.start, segment.start), max(self.end, segment.end)
        self.seconds += seconds
        self.energy += seconds * 10 ** (segment.level / 10)
        self.clipped += seconds * (segment.clipped or 0.0)
        if segment.bandwidth is not None:
            self.bandwidth = max(self.bandwidth or 0.0, segment.bandwidth)
        self.channel = self.channel or segment.channel


@dataclass
class _Sum:
    """What the windows of a recording, or of one of its channels, add up to."""

    scored: _Span = field(default_factory=_Span)
    seen: _Span = field(default_factory=_Span)
    count: int = 0
    statuses: set[str] = field(default_factory=set)
    sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    latest: Segment | None = None
    error: str | None = None

    def add(self, segment: Segment, scores: Scores) -> None:
        """Count a window in, with its scores (1, labels), or none (0, labels)."""
        assert segment.start is not None and segment.end is not None
        seconds = segment.end - segment.start
        self.latest = segment
        self.statuses.add(segment.status)
        self.error = self.error or segment.error
        self.seen.add(segment, seconds)
        embedding = [] if scores.embedding is None else [(EMBEDDING, scores.embedding)]
        for name, rows in (("", scores.fused), *scores.branches.items(), *embedding):
            weighted = seconds * rows.sum(axis=0, dtype=np.float64)
            self.sums[name] = self.sums[name] + weighted if name in self.sums else weighted
        if segment.status == "ok":
            self.count += 1
            self.scored.add(segment, seconds)

    def result(self, *, last: bool) -> tuple[Segment, Scores]:
        """The recording's segment, and its row of scores if it has one."""
        assert self.latest is not None
        status = next(each for each in PRECEDENCE if each in self.statuses)
        span = self.scored if self.count else self.seen
        segment = self.latest._replace(
            status=status,
            error=self.error,
            last=last,
            start=span.start,
            end=span.end,
            level=10 * math.log10(span.energy / span.seconds) if span.energy > 0 else -math.inf,
            bandwidth=span.bandwidth,
            clipped=span.clipped / span.seconds if span.seconds > 0 else 0.0,
            channel=span.channel,
            segments=self.count,
            is_window=False,
        )
        rows = 1 if status == "ok" else 0
        means = {
            name: np.repeat((total / max(self.scored.seconds, 1e-9)).astype(np.float32)[None], rows, axis=0)
            for name, total in self.sums.items()
        }
        return segment, Scores(means.pop(""), embedding=means.pop(EMBEDDING, None), branches=means)


def _rows(scores: Scores, begin: int, end: int) -> Scores:
    branches = {name: rows[begin:end] for name, rows in scores.branches.items()}
    embedding = None if scores.embedding is None else scores.embedding[begin:end]
    return Scores(scores.fused[begin:end], branches, embedding)


def concatenated(scores: list[Scores]) -> Scores:
    """The rows of all, in order."""
    branches = {name: np.concatenate([each.branches[name] for each in scores]) for name in scores[0].branches}
    embeddings = [each.embedding for each in scores if each.embedding is not None]
    embedding = np.concatenate(embeddings) if embeddings else None
    return Scores(np.concatenate([each.fused for each in scores]), branches, embedding)
