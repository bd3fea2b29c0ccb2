"""Leave one corpus out: what a model that several corpora trained says of one that it never heard.

Each corpus that may be trained on is left out once; those that are only measured on meet the model that all others
trained. A corpus is asked for its own labels alone, as it would be by a user who knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.audio.measure import bandwidth, level
from ser_batch.audio.reader import read_recording
from ser_batch.bundle.fusion import FUSED
from ser_batch.evaluation.metrics import evaluate, unweighted_average_recall
from ser_batch.evaluation.statistics import bootstrap_interval
from training.config import SAMPLE_RATE, RunConfig
from training.data.corpora import Corpora, Member, by_corpus
from training.data.corpus import Corpus
from training.data.features import read_all
from training.files import read_arrays
from training.runs import SPECTROGRAM
from training.runtime import Runtime
from training.stages import train

ALL = "all"
"""Name of the run that leaves nothing out."""
SPEAKERS = 5
"""From how many speakers on an interval is over speakers instead of clips."""
SAMPLE = 200
"""Recordings of a corpus whose level and bandwidth are measured, evenly spread."""


def leave_one_out(
    config: RunConfig, corpora: Corpora, out: Path, runtime: Runtime | None = None, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Train without each corpus in turn, in `out`/<corpus>, and with all of them in `out`/all; finished runs are read.

    Args:
        config: of every run; its protocol is `given`.
        names: the corpora to leave out; by default every labelled one that may be trained on.

    Returns:
        {"corpora": what each is, "runs": corpus → model → figures}.
    """
    left_out = [m.name for m in (corpora.train_on(names) if names else corpora.of_role("train"))]
    found: dict[str, Any] = {}
    for name in [*left_out, ALL]:
        joined = corpora.for_training([] if name == ALL else [name])
        train(config, joined, out / name, runtime)
        wanted = [m.name for m in corpora.of_role("measure")] if name == ALL else [name]
        found |= unseen(joined, read_arrays(out / name / "predictions.npz"), wanted, config.context.name)
    return {"corpora": {name: described(corpora.by_name[name]) for name in found}, "runs": found}


def unseen(
    corpus: Corpus, arrays: dict[str, np.ndarray], names: Sequence[str], context: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Corpus → model → figures of a run's test clips, by its predictions.npz, of the corpora `names`."""
    rows = {example.file: i for i, example in enumerate(corpus.examples)}
    tested = [rows[str(file)] for file in arrays["test/files"]]
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for role, model in {"context": context, "spectrogram": SPECTROGRAM, "fused": FUSED}.items():
        for name, (truth, probabilities, labels) in by_corpus(corpus, tested, arrays[f"test/{model}"]).items():
            if name in found:
                speakers = [corpus.examples[i].speaker for i in tested if corpus.examples[i].corpus == name]
                found[name][role] = _figures(truth, probabilities, labels, speakers)
    return found


def _figures(
    truth: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...], speakers: Sequence[str | None]
) -> dict[str, Any]:
    measured = evaluate(truth, probabilities, labels)
    interval, over = measured.ua_interval, "clips"
    if None not in speakers and len(set(speakers)) >= SPEAKERS:
        interval, over = (
            _over_speakers(truth, probabilities.argmax(axis=1), len(labels), np.array(speakers)),
            "speakers",
        )
    return {
        "ua": measured.ua,
        "ua_interval": list(interval),
        "over": over,
        "accuracy": measured.accuracy,
        "ece": measured.ece,
        "clips": len(truth),
        "labels": list(labels),
        "confusion": [list(row) for row in measured.confusion],
    }


def _over_speakers(truth: np.ndarray, predicted: np.ndarray, classes: int, speakers: np.ndarray) -> tuple[float, float]:
    """The bootstrap interval of UA over speakers, each drawn with all their clips."""
    names = np.unique(speakers)
    rows = [np.flatnonzero(speakers == name) for name in names]

    def recall(drawn: np.ndarray) -> float:
        clips = np.concatenate([rows[i] for i in drawn])
        return unweighted_average_recall(truth[clips], predicted[clips], classes)

    return bootstrap_interval(recall, np.arange(len(names)))


def described(member: Member) -> dict[str, Any]:
    """What a corpus is: its terms, clips, speakers, and median level (dBFS) and bandwidth (Hz) of some recordings."""
    corpus = member.corpus
    step = max(1, len(corpus) // SAMPLE)
    paths = [corpus.path(i) for i in range(0, len(corpus), step)]
    measured = list(read_all(_measured, paths))
    bands = [band for _, band in measured if band is not None]
    return {
        "role": member.entry.role,
        "licence": member.entry.licence,
        "clips": len(corpus),
        "speakers": len({e.speaker for e in corpus.examples}),
        "level": float(np.median([found for found, _ in measured if np.isfinite(found)])),
        "bandwidth": float(np.median(bands)),
    }


def _measured(path: Path) -> tuple[float, float | None]:
    samples = read_recording(path, SAMPLE_RATE)
    return level(samples), bandwidth(samples, SAMPLE_RATE, SAMPLE_RATE)
