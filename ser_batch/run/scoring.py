"""Rows in their order, gathered into batches and scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ser_batch.clips import Waveform
from ser_batch.decode.source import Decoded
from ser_batch.engines.scorer import Scorer, Scores
from ser_batch.errors import EngineError
from ser_batch.run.progress import Tally

Scored = tuple[list[Decoded], Scores]
"""Rows in order, and a row of scores for each of them whose status is "ok"."""


def score_all(
    decoded: Iterable[tuple[Decoded, Waveform | None]],
    scorer: Scorer,
    batch_size: int,
    tally: Tally,
    *,
    proven: bool = False,
) -> Iterator[Scored]:
    """Gather clips into batches and score them; rows keep their order, those without a clip in their places.

    Args:
        proven: whether this engine has scored something before.

    Raises:
        EngineError: the engine failed before it scored anything; later, a clip at which it fails when alone
            becomes an error.
    """
    buffer = np.empty((batch_size, scorer.bundle.manifest.clip.samples), dtype=np.float32)
    rows: list[Decoded] = []
    filled = 0
    for row, waveform in _timed(decoded, tally):
        rows.append(row)
        if waveform is not None:
            buffer[filled] = waveform
            filled += 1
        # A long stretch without clips is let go, too.
        if filled == batch_size or len(rows) >= 8 * batch_size:
            with tally.stage("engine"):
                scored = _score(rows, buffer[:filled], scorer, proven)
            yield scored
            proven = proven or filled > 0
            rows, filled = [], 0
    if rows:
        with tally.stage("engine"):
            scored = _score(rows, buffer[:filled], scorer, proven)
        yield scored


def _timed(
    decoded: Iterable[tuple[Decoded, Waveform | None]], tally: Tally
) -> Iterator[tuple[Decoded, Waveform | None]]:
    iterator = iter(decoded)
    while True:
        with tally.stage("decode"):
            item = next(iterator, None)
        if item is None:
            return
        yield item


def _score(rows: list[Decoded], waveform: Waveform, scorer: Scorer, proven: bool) -> Scored:
    try:
        return rows, scorer.score(waveform)
    except EngineError:
        # Which clip is it? If it is all of them, and no other has ever been scored, it is the engine.
        alone = [_score_alone(clip[None], scorer) for clip in waveform]
        kept = [scores for scores in alone if isinstance(scores, Scores)]
        if not proven and not kept:
            raise
    outcomes = iter(alone)
    told = [row if row.status != "ok" else _told(row, next(outcomes)) for row in rows]
    return told, _concatenate([scorer.score(waveform[:0]), *kept])


def _score_alone(waveform: Waveform, scorer: Scorer) -> Scores | str:
    try:
        return scorer.score(waveform)
    except EngineError as error:
        return str(error)


def _told(row: Decoded, outcome: Scores | str) -> Decoded:
    return replace(row, status="error", error=outcome) if isinstance(outcome, str) else row


def _concatenate(scores: list[Scores]) -> Scores:
    branches = {name: np.concatenate([each.branches[name] for each in scores]) for name in scores[0].branches}
    return Scores(np.concatenate([each.fused for each in scores]), branches)
