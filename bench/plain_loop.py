"""What a user would write without the pipeline: decode, gather a batch, score it, and one table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.audio.recording import read_clip
from ser_batch.engines.scorer import Scorer
from ser_batch.recordings.sources import Source


def plain_loop(sources: Sequence[Source], scorer: Scorer, out: Path, batch: int) -> None:
    """Score the clip of each source, in one process, and write file, label and probabilities to `out` as Parquet.

    Raises:
        AudioError: a recording cannot be read; a plain loop ends there.
    """
    rows = []
    for start in range(0, len(sources), batch):
        group = sources[start : start + batch]
        clips = np.stack([read_clip(source.path, scorer.bundle.manifest.clip).waveform for source in group])
        for source, scores in zip(group, scorer.score(clips).fused.tolist(), strict=True):
            columns = {f"p_{label}": score for label, score in zip(scorer.labels, scores, strict=True)}
            best = int(np.argmax(scores))
            rows.append({"file": source.file, "label": scorer.labels[best], "score": scores[best], **columns})
    pq.write_table(pa.Table.from_pylist(rows), out)
