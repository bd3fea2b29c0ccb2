"""A bundle on labelled recordings under each degradation: how much of its accuracy is left, and which bounds it keeps.

Scored as `ser-batch run` scores, without torch, each recording by the one clip of the bundle's rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.audio.reader import read_recording
from ser_batch.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.clips import Waveform, cut
from ser_batch.engines import open_engine
from ser_batch.engines.scorer import Scorer
from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import accuracy, unweighted_average_recall
from training.data.corpus import Corpus
from training.robustness.degradations import BELOW_CONTEXT, CLEAN, DEGRADATIONS, Degradation, Scene

BATCH = 8
"""Recordings read, degraded and scored at a time."""
VOICES = 6
"""Speakers of the babble, where there are so many others."""
SPECTROGRAM = "spectrogram"
"""Name of the branch that is not the context branch."""
FALL, MOVED, BELOW = "points that the fusion falls", "change of a probability", "points below the context branch"
"""What is bounded."""
Rows = dict[str, np.ndarray]
"""Output (fused, then each branch) → probabilities (N, C)."""


@dataclass(frozen=True)
class Output:
    """One output under one degradation."""

    accuracy: float
    ua: float
    correct: int
    changed: int
    """Clips that have another label than the clean recording has."""
    moved: float
    """Largest change of a probability of a clip from that of the clean recording."""


@dataclass(frozen=True)
class Bound:
    """One bound and whether it is kept."""

    what: str
    value: float
    limit: float
    kept: bool


@dataclass(frozen=True)
class Row:
    """One degradation."""

    name: str
    outputs: dict[str, Output]
    bounds: tuple[Bound, ...]


@dataclass(frozen=True)
class Question:
    """What a bundle is measured on."""

    corpus: Corpus
    rows: tuple[int, ...]
    """Indices of the examples that are scored; babble is made of all."""
    targets: np.ndarray
    """(N,) index of each scored example's label among the bundle's."""
    streets: tuple[Path, ...] = ()
    """Recordings of streets; none: the noise of a street is synthesised."""
    seed: int = 0

    def noises(self) -> dict[str, str]:
        """What the noise is made of, kind by kind."""
        others = "other speakers" if all(e.speaker for e in self.corpus.examples) else "which no speaker is stated"
        street = f"{len(self.streets)} recordings" if self.streets else "synthesised (training.robustness)"
        return {"babble": f"up to {VOICES} recordings of the same corpus by {others}", "street": street}


def measure(
    bundle: Bundle, question: Question, backend: str = "onnxruntime", progress: Callable[[int], None] | None = None
) -> list[Row]:
    """Every degradation's row.

    Args:
        progress: called with the number of recordings that are done.

    Raises:
        AudioError: a recording cannot be decoded.
        TrainingError: there is no other recording to make babble of.
    """
    with closing(open_engine(bundle, backend, batch=BATCH)) as engine:
        scored = _score(Scorer(bundle, engine), question, progress)
    context = next((branch.name for branch in bundle.manifest.branches if branch.name != SPECTROGRAM), None)
    clean, rows = scored[CLEAN], []
    for degradation in DEGRADATIONS:
        found = scored[degradation.name]
        outputs = {name: _output(rows, clean[name], question.targets) for name, rows in found.items()}
        whole = rows[0].outputs if rows else outputs
        rows.append(Row(degradation.name, outputs, tuple(_bounds(degradation, outputs, whole, context))))
    return rows


def _score(scorer: Scorer, question: Question, progress: Callable[[int], None] | None) -> dict[str, Rows]:
    """Degradation → output → (N, C)."""
    rule, parts = scorer.bundle.manifest.clip, dict[str, list[Rows]]()
    for begin in range(0, len(question.rows), BATCH):
        batch = question.rows[begin : begin + BATCH]
        recordings = [read_recording(question.corpus.path(index), rule.sample_rate) for index in batch]
        for degradation in DEGRADATIONS:
            heard = [
                cut(degradation.change(recording, _scene(question, index, degradation, rule.sample_rate)), rule)
                for index, recording in zip(batch, recordings, strict=True)
            ]
            scores = scorer.score(np.stack(heard).astype(np.float32, copy=False))
            parts.setdefault(degradation.name, []).append({FUSED: scores.fused, **scores.branches})
        if progress is not None:
            progress(len(batch))
    return {
        name: {output: np.concatenate([part[output] for part in found]) for output in found[0]}
        for name, found in parts.items()
    }


def _scene(question: Question, index: int, degradation: Degradation, rate: int) -> Scene:
    """What is drawn depends on the recording's name, not on which others are scored beside it."""
    corpus, name = question.corpus, f"{question.corpus.examples[index].file} {degradation.name}"
    rng = np.random.default_rng((question.seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))))

    def street() -> Waveform:
        return read_recording(question.streets[int(rng.integers(len(question.streets)))], rate)

    return Scene(rate, rng, partial(_voices, corpus, index, rate, rng), street if question.streets else None)


def _voices(corpus: Corpus, index: int, rate: int, rng: np.random.Generator) -> list[Waveform]:
    """Recordings by VOICES other speakers, one of each; where no speakers are stated, other recordings."""
    own = corpus.examples[index].speaker
    order = [int(i) for i in rng.permutation(len(corpus))]
    others: dict[Any, int] = {}
    for i in order:
        speaker = corpus.examples[i].speaker
        if i != index and (own is None or speaker != own):
            others.setdefault(i if speaker is None else speaker, i)
    if not others:
        raise TrainingError(
            f"babble behind {corpus.examples[index].file} takes recordings by other speakers", got="none"
        )
    return [read_recording(corpus.path(i), rate) for i in list(others.values())[:VOICES]]


def _output(rows: np.ndarray, clean: np.ndarray, targets: np.ndarray) -> Output:
    predicted = rows.argmax(axis=1)
    return Output(
        accuracy=accuracy(targets, predicted),
        ua=unweighted_average_recall(targets, predicted, rows.shape[1]),
        correct=int((predicted == targets).sum()),
        changed=int((predicted != clean.argmax(axis=1)).sum()),
        moved=float(np.abs(rows - clean).max()),
    )


def _bounds(
    degradation: Degradation, found: Mapping[str, Output], clean: Mapping[str, Output], context: str | None
) -> Iterator[Bound]:
    fused = found[FUSED]
    if degradation.may_fall is not None:
        fall = _points(clean[FUSED], fused)
        yield Bound(FALL, fall, degradation.may_fall, fall <= degradation.may_fall)
    if degradation.may_change is not None:
        moved = max(output.moved for output in found.values())
        yield Bound(MOVED, moved, degradation.may_change, moved <= degradation.may_change)
    if context is not None:
        below = _points(found[context], fused)
        yield Bound(BELOW, below, BELOW_CONTEXT, below <= BELOW_CONTEXT)


def _points(better: Output, worse: Output) -> float:
    return round(100 * (better.accuracy - worse.accuracy), 6)  # a fall of 3 clips in 100 is one of 3 points


def targets_of(
    corpus: Corpus, rows: Sequence[int], labels: Sequence[str], means: Callable[[str], str | None]
) -> np.ndarray:
    """Index (N,) among `labels` of the examples `rows`, whose labels `means` translates.

    Raises TrainingError for a label that means none of them.
    """
    meant = [means(corpus.examples[i].label) for i in rows]
    if unknown := sorted({corpus.examples[i].label for i, label in zip(rows, meant, strict=True) if label is None}):
        raise TrainingError(
            "the corpus has labels that are none of the bundle's",
            got=", ".join(unknown),
            expected=", ".join(labels),
            remedy="Say what they mean: --map anger=angry.",
        )
    return np.array([list(labels).index(str(label)) for label in meant])
