"""Recorded speech, for what synthetic clips cannot show: the labels that flip, and what that costs in accuracy.

Every runtime and precision is compared with onnxruntime in fp32, clip by clip: each batch is decoded once and scored by
all that is open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_batch.audio.reader import read_clip
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import BundleError, InputError, SerError
from ser_batch.evaluation.truth import RAVDESS, match, ravdess_labels, read_labels
from ser_batch.recordings.find import find_recordings
from ser_batch.recordings.recording import Recording
from ser_batch.verification.compare import BASELINE, Candidate, Comparison, Key, Rows, compare, outputs_of
from ser_batch.verification.records import EXACT, TOLERANCES, SpeechDifference, SpeechRecord

_BATCH = 8
Progress = Callable[[int], None]
"""Called with the number of clips of each batch that is done."""


@dataclass(frozen=True)
class LabelledSpeech:
    """Recordings and what each of them truly is."""

    recordings: tuple[Recording, ...]
    targets: tuple[int, ...]
    """Index of each recording's label among the bundle's."""
    corpus: str
    """"ravdess", or the name of the table of labels."""
    sha256: str
    """Of the recordings' names and labels, in order: two certificates that share it are about the same set."""


def find_speech(folder: Path, count: int | None = None) -> tuple[Recording, ...]:
    """The recordings under `folder`, or `count` of them, evenly spaced in the order of their names.

    Raises:
        InputError: there is no audio.
    """
    recordings = tuple(find_recordings([folder]))
    if count is None or count >= len(recordings):
        return recordings
    return tuple(recordings[index] for index in np.linspace(0, len(recordings) - 1, count).round().astype(int))


def find_labelled(folder: Path, labels: str, names: Sequence[str]) -> LabelledSpeech:
    """The labelled recordings under `folder`.

    Args:
        labels: "ravdess", whose names say the label, or a table with columns `path` and `label`.
        names: the bundle's labels.

    Raises:
        InputError: no recording has a label, one that the table lists is not there, or a label is none of `names`.
    """
    recordings = find_speech(folder)
    truth = _labels_of([recording.name for recording in recordings], labels, folder)
    if not truth:
        raise InputError(f"no recording under {folder} has a label", expected=f"{RAVDESS} names, or a table of labels")
    if unknown := sorted(set(truth.values()) - set(names)):
        raise InputError("labels are not those of the bundle", got=unknown, expected=list(names))
    labelled = tuple(recording for recording in recordings if recording.name in truth)
    listing = "".join(f"{recording.name}\t{truth[recording.name]}\n" for recording in labelled)
    return LabelledSpeech(
        recordings=labelled,
        targets=tuple(list(names).index(truth[recording.name]) for recording in labelled),
        corpus=RAVDESS if labels == RAVDESS else Path(labels).name,
        sha256=hashlib.sha256(listing.encode()).hexdigest(),
    )


def _labels_of(files: list[str], labels: str, folder: Path) -> dict[str, str]:
    """File → label, of the files that have one."""
    if labels == RAVDESS:
        return ravdess_labels(files)
    table = read_labels(Path(labels))
    matching = match(files, list(table))
    if matching.missing or matching.ambiguous:
        listed = matching.missing or [files[index] for index in sorted(matching.ambiguous)]
        raise InputError(
            f"{len(listed)} recordings of {labels} are not under {folder}, or more than once",
            got=f"{listed[0]} for one",
        )
    return {file: table[name] for file, name in zip(files, matching.names, strict=True) if name is not None}


def read_batches(recordings: Sequence[Recording], rule: ClipRule, size: int) -> Iterator[Waveform]:
    """(B, samples) float32, B = `size` but for the last batch, in order.

    Raises:
        AudioError: a recording cannot be decoded; none is passed over.
    """
    for begin in range(0, len(recordings), size):
        yield np.stack([read_clip(recording.path, rule).waveform for recording in recordings[begin : begin + size]])


@dataclass(frozen=True)
class SpeechComparison:
    """One output of one runtime on labelled speech."""

    comparison: Comparison
    """With the baseline."""
    accuracy: float | None
    """None: of a branch whose labels are others than the bundle's."""
    accuracy_difference: float | None
    """From the baseline's."""

    @property
    def difference(self) -> SpeechDifference:
        """What a certificate says of it."""
        c = self.comparison
        return SpeechDifference(
            **asdict(c.difference),
            flip_rate=c.flips / c.rows,
            accuracy=self.accuracy,
            accuracy_difference=self.accuracy_difference,
        )

    def failures(self) -> Iterator[str]:
        """Each reason why this is not within the tolerance of its precision."""
        c, tolerance = self.comparison, TOLERANCES.get(self.comparison.precision)
        where = f"{c.engine} {c.precision}, {c.output}, {c.rows} labelled clips"
        if tolerance is None:
            yield f"{where}: no tolerance is stated for this precision"
            return
        if c.non_finite:
            yield f"{where}: {c.non_finite} values are not finite"
        exact = c.precision == EXACT
        if exact and c.max_difference is not None and c.max_difference > tolerance.max_difference:
            yield f"{where}: max |Δp| {c.max_difference:.2e} is over the tolerance of {tolerance.max_difference:.0e}"
        if (exact or c.output == FUSED) and c.flips > tolerance.flip_rate * c.rows:
            yield f"{where}: {c.flips} labels flip, which is over {tolerance.flip_rate:.1%}"


@dataclass(frozen=True)
class SpeechReport:
    """What `compare_speech` found."""

    speech: LabelledSpeech
    results: tuple[SpeechComparison, ...]
    failures: tuple[str, ...]

    def of(self, key: Key) -> list[SpeechComparison]:
        """The results of one candidate."""
        return [result for result in self.results if result.comparison.key == key]

    def record(self, key: Key) -> SpeechRecord | None:
        """What a certificate says of one candidate; None if it was not compared."""
        outputs = tuple(result.difference for result in self.of(key))
        return (
            SpeechRecord(self.speech.corpus, len(self.speech.targets), self.speech.sha256, outputs) if outputs else None
        )


def compare_speech(
    bundle: Bundle, found: Sequence[Candidate], speech: LabelledSpeech, progress: Progress | None = None
) -> SpeechReport:
    """Score `speech` in each candidate and compare with `BASELINE`, which must be among them.

    Raises:
        AudioError: a recording cannot be decoded.
    """
    failures: list[str] = []
    rows = _score(bundle, found, speech, failures, progress)
    if BASELINE not in rows:
        failures.append(f"nothing was compared on labelled speech: {' '.join(BASELINE)} is not there")
        return SpeechReport(speech, (), tuple(failures))
    targets, results = np.array(speech.targets), []
    measured = rows[BASELINE] if bundle.branch_labels == bundle.labels else {FUSED: rows[BASELINE][FUSED]}
    accuracies = {output: _accuracy(found, targets) for output, found in measured.items()}
    for key, outputs in rows.items():
        for output, probabilities in outputs.items():
            accuracy = _accuracy(probabilities, targets) if output in accuracies else None
            comparison = compare(*key, output, rows[BASELINE][output], probabilities)
            change = None if accuracy is None else accuracy - accuracies[output]
            results.append(SpeechComparison(comparison, accuracy, change))
    failures += [reason for result in results for reason in result.failures()]
    failures += _accuracy_failures(bundle, speech, accuracies[FUSED])
    return SpeechReport(speech, tuple(results), tuple(failures))


def _score(
    bundle: Bundle,
    found: Sequence[Candidate],
    speech: LabelledSpeech,
    failures: list[str],
    progress: Progress | None,
) -> dict[Key, dict[str, Rows]]:
    """Backend and precision → output → (N, C)."""
    with ExitStack() as stack:
        engines = {}
        for candidate in found:
            try:
                engines[candidate.key] = stack.enter_context(closing(candidate.open()))
            except BundleError:
                continue  # it has no graph in that precision, which the report on the reference clips says
            except SerError as error:
                failures.append(f"{' '.join(candidate.key)}: {error}")
        batches: dict[Key, list[dict[str, Rows]]] = {key: [] for key in engines}
        for waveform in read_batches(speech.recordings, bundle.manifest.clip, _BATCH):
            for key, engine in list(engines.items()):
                try:
                    outputs = outputs_of(bundle, engine, waveform)
                    batches[key].append({name: rows for name, rows in outputs.items() if name != EMBEDDING})
                except SerError as error:
                    failures.append(f"{' '.join(key)}: {error}")
                    del engines[key], batches[key]
            if progress is not None:
                progress(len(waveform))
    return {
        key: {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}
        for key, parts in batches.items()
    }


def _accuracy(rows: Rows, targets: npt.NDArray[np.int64]) -> float:
    return float((rows.argmax(axis=1) == targets).mean())


def _accuracy_failures(bundle: Bundle, speech: LabelledSpeech, accuracy: float) -> Iterator[str]:
    """Labels permuted everywhere alike, in graphs, manifest and reference, show on speech alone.

    On the corpus it was trained on, a model cannot be worse than the lower end of what it says of clips held out.
    """
    try:
        stated = bundle.manifest.metrics["test"][FUSED]["accuracy_interval"][0]
        corpus = bundle.manifest.provenance["data"]
    except (KeyError, TypeError, IndexError):
        return
    if corpus == speech.corpus and accuracy < stated:
        yield (
            f"accuracy on {len(speech.targets)} clips of {corpus} is {accuracy:.1%}, where the bundle states at least "
            f"{stated:.1%} of clips held out: labels, fusion or normalisation are not those of the training"
        )
