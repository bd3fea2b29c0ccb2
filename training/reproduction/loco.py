"""Leave one corpus out: what a model that several corpora trained says of one that it never heard.

A run over corpora whose fusion is fitted out of fold has trained its branches without each of them in turn. Their
probabilities of the corpus left out are fused here by a matrix that was fitted on the other corpora. Corpora that the
run did not train on meet the whole model. Each is asked for its own labels alone, as by a user who knows them; labels
that no other corpus tells apart (calm and neutral, where they have one word for both) count as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.audio.measure import bandwidth, level
from ser_batch.audio.reader import read_recording
from ser_batch.bundle.fusion import FUSED
from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import evaluate, unweighted_average_recall
from ser_batch.evaluation.statistics import ENOUGH_GROUPS, bootstrap_interval
from training.config import SAMPLE_RATE, RunConfig, load_config
from training.data.corpora import Corpora, Member, balanced_weights, by_corpus
from training.data.corpus import Corpus
from training.data.features import read_all
from training.files import read_arrays, read_json
from training.models.fusion import Probabilities, shrunk_fusion
from training.runs import SPECTROGRAM, check_finished, fitted_parts

PRECISION = 0.7
"""Share of right answers that a threshold is sought for."""
SAMPLE = 200
"""Recordings of a corpus whose level and bandwidth are measured, evenly spread."""
OUT_OF_FOLD = Path("out-of-fold/predictions.npz")
Rows = tuple[list[int], Probabilities]
"""Examples of the joined corpus, and the probabilities (n, classes) of each model for them."""


def leave_one_out(run: Path, corpora: Corpora) -> dict[str, Any]:
    """Measure a finished run on every corpus that its branches, or all of it, never heard.

    Returns {"corpora": what each is, "heard": those that the run was trained on, "runs": corpus → model → figures,
    "threshold": from which score on most answers are right}.
    Raises TrainingError for a run that is not finished, of other corpora, or whose fusion is not fitted out of fold.
    """
    check_finished(run, "config.json", "split.json", "predictions.npz", "result.json")
    config, corpus = load_config(run / "config.json"), corpora.for_training()
    if not (run / OUT_OF_FOLD).is_file():
        raise TrainingError(
            f"{run} has not left any corpus out", got=f"no {OUT_OF_FOLD}", remedy='Set fusion.fit_on = "out-of-fold".'
        )
    heard, found, served = heard_by(run, corpus), {}, []
    for name, (rows, probabilities) in [*left_out(run, config, corpus), *unheard(run, corpora, corpus, heard)]:
        alike = indistinguishable(corpus, heard - {name})
        found[name] = {
            role: figures_of(corpus, name, rows, probabilities[model], alike)
            for role, model in {"context": config.context.name, "spectrogram": SPECTROGRAM, "fused": FUSED}.items()
        }
        served.append(answers(corpus, name, rows, probabilities[FUSED], alike))
    return {
        "corpora": {name: described(corpora.by_name[name]) for name in found},
        "heard": [name for name in found if name in heard],
        "runs": found,
        "threshold": threshold(served),
    }


def trust(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle may state of it as `metrics.trust` (docs/bundle-format.md), of `leave_one_out`'s result."""
    fused = {name: models["fused"] for name, models in found["runs"].items()}
    never = [name for name in fused if name not in found["heard"]]
    unseen = {
        "ua": float(np.mean([figures["ua"] for figures in fused.values()])),
        "labels": max(len(figures["labels"]) for figures in fused.values()),
        "clips": sum(figures["clips"] for figures in fused.values()),
        "corpora": [*never, *(f"{name} (left out of the training)" for name in found["heard"])],
        "how": "mean over corpora, each asked for its own labels",
    }
    return {"unseen": unseen} | ({"confident": found["threshold"]} if found["threshold"] else {})


def left_out(run: Path, config: RunConfig, corpus: Corpus) -> Iterator[tuple[str, Rows]]:
    """Each corpus that was trained on, with what models say of it that were trained and fused without it."""
    split, arrays = read_json(run / "split.json"), read_arrays(run / OUT_OF_FOLD)
    index = {example.file: i for i, example in enumerate(corpus.examples)}
    try:
        rows = [index[file] for part in fitted_parts(config) for file in split[part]]
    except KeyError as error:
        raise TrainingError(f"{run} is a run of other corpora", got=error.args[0]) from error
    branches = {name: arrays[f"out-of-fold/{name}"] for name in (config.context.name, SPECTROGRAM)}
    owners = np.array([corpus.examples[i].corpus for i in rows])
    for name in dict.fromkeys(owners.tolist()):
        inside, others = np.flatnonzero(owners == name), np.flatnonzero(owners != name)
        kept = [rows[i] for i in others]
        weights = balanced_weights(corpus, kept, config.corpus_power, config.label_power)
        train = {branch: p[others] for branch, p in branches.items()}, corpus.targets[kept]
        fusion = shrunk_fusion(config.fusion.shrinkage, train, weights)
        own = {branch: p[inside] for branch, p in branches.items()}
        yield name, ([rows[i] for i in inside], {**own, FUSED: fusion(own)})


def unheard(run: Path, corpora: Corpora, corpus: Corpus, heard: set[str]) -> Iterator[tuple[str, Rows]]:
    """Each corpus that the run did not train on, with what the whole run says of it."""
    arrays = read_arrays(run / "predictions.npz")
    index = {example.file: i for i, example in enumerate(corpus.examples)}
    rows = [index[str(file)] for file in arrays["test/files"]]
    for member in corpora.of_role("train", "validate", "measure"):
        if member.name in heard:
            continue
        places = [place for place, i in enumerate(rows) if corpus.examples[i].corpus == member.name]
        tested = {key.removeprefix("test/"): p[places] for key, p in arrays.items() if key.startswith("test/")}
        yield member.name, ([rows[place] for place in places], tested)


def heard_by(run: Path, corpus: Corpus) -> set[str]:
    """The corpora that a run was trained on."""
    trained = set(read_json(run / "split.json")["train"])
    return {str(example.corpus) for example in corpus.examples if example.file in trained}


def indistinguishable(corpus: Corpus, heard: set[str]) -> dict[str, str]:
    """Class → the first class that no label of the corpora `heard` tells it apart from."""
    meanings = [set(classes) for name in heard for classes in corpus.sets[name].values()]
    first: dict[tuple[bool, ...], str] = {}
    return {c: first.setdefault(tuple(c in classes for classes in meanings), c) for c in corpus.labels}


def answers(
    corpus: Corpus, name: str, rows: list[int], probabilities: np.ndarray, alike: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) of one corpus' examples as a bundle gives them, among all classes, and whether each is right (n,)."""
    meanings = {label: {alike[c] for c in classes} for label, classes in corpus.sets[name].items()}
    said = [alike[corpus.labels[i]] for i in probabilities.argmax(axis=1)]
    right = [answer in meanings[corpus.examples[row].label] for answer, row in zip(said, rows, strict=True)]
    return probabilities.max(axis=1), np.array(right)


def threshold(served: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float] | None:
    """The lowest score, of 99, from which on PRECISION of the answers are right; None where there is none.

    Every corpus (scores, right) counts alike. Returns {"score", "precision", "share" of clips that reach it}.
    """
    for score in np.arange(1, 100) / 100:
        passed = [scores >= score for scores, _ in served]
        share = float(np.mean([each.mean() for each in passed]))
        right = float(np.mean([(each & hits).mean() for each, (_, hits) in zip(passed, served, strict=True)]))
        if share and right / share >= PRECISION:
            return {"score": float(score), "precision": right / share, "share": share}
    return None


def figures_of(
    corpus: Corpus, name: str, rows: list[int], probabilities: np.ndarray, alike: Mapping[str, str]
) -> dict[str, Any]:
    """Figures of one corpus' examples `rows` by their probabilities (n, classes), labels of classes alike as one."""
    truth, own, labels = by_corpus(corpus, rows, probabilities)[name]
    groups: dict[frozenset[str], list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(frozenset(alike[c] for c in corpus.sets[name][label]), []).append(i)
    number = {i: k for k, group in enumerate(groups.values()) for i in group}
    truth = np.array([number[i] for i in truth.tolist()])
    own = np.stack([own[:, group].sum(axis=1) for group in groups.values()], axis=1)
    labels = tuple(" or ".join(labels[i] for i in group) for group in groups.values())
    return _figures(truth, own, labels, [corpus.examples[i].speaker for i in rows])


def _figures(
    truth: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...], speakers: Sequence[str | None]
) -> dict[str, Any]:
    measured = evaluate(truth, probabilities, labels)
    interval, over = measured.ua_interval, "clips"
    if None not in speakers and len(set(speakers)) >= ENOUGH_GROUPS:
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
