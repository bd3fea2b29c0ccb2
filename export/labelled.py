"""Every runtime and precision on labelled speech: labels that flip, |Δp|, and what that costs in accuracy.

All are compared with onnxruntime in fp32, clip by clip: each batch is decoded once and scored by all that is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.candidates import Candidate
from export.gates import EXACT, GATES
from export.parity import Comparison, Rows, compare
from export.speech import LabelledSpeech, read_batches
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.engines.protocol import Engine
from ser_batch.errors import BundleError, SerError

BASELINE = ("onnxruntime", "fp32")
"""What every other is compared with."""
_BATCH = 8
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Labelled:
    """One output of one runtime on labelled speech."""

    comparison: Comparison
    """With the baseline."""
    accuracy: float
    accuracy_difference: float
    """From the baseline's."""

    def failures(self) -> Iterator[str]:
        """Each reason why this does not pass the gate of its precision."""
        c, gate = self.comparison, GATES.get(self.comparison.precision)
        where = f"{c.engine} {c.precision}, {c.output}, {c.rows} labelled clips"
        if gate is None:
            yield f"{where}: no gate is stated for this precision"
            return
        if c.non_finite:
            yield f"{where}: {c.non_finite} values are not finite"
        exact = c.precision == EXACT
        if exact and c.max_difference is not None and c.max_difference > gate.max_difference:
            yield f"{where}: max |Δp| {c.max_difference:.2e} is over the tolerance of {gate.max_difference:.0e}"
        if (exact or c.output == FUSED) and c.flips > gate.flip_rate * c.rows:
            yield f"{where}: {c.flips} labels flip, which is over {gate.flip_rate:.1%}"


@dataclass(frozen=True)
class LabelledReport:
    """What `compare_labelled` found."""

    speech: LabelledSpeech
    results: tuple[Labelled, ...]
    failures: tuple[str, ...]


def compare_labelled(
    bundle: Bundle,
    found: Sequence[Candidate],
    speech: LabelledSpeech,
    progress: Progress | None = None,
) -> LabelledReport:
    """Score `speech` in each candidate and compare with `BASELINE`, which must be among them.

    Args:
        progress: called with the number of clips of each batch that is done.

    Raises:
        AudioError: a recording cannot be decoded.
    """
    failures: list[str] = []
    rows = _score(bundle, found, speech, failures, progress)
    if BASELINE not in rows:
        failures.append(f"nothing was compared on labelled speech: {' '.join(BASELINE)} is not there")
        return LabelledReport(speech, (), tuple(failures))
    targets, results = np.array(speech.targets), []
    accuracies = {output: _accuracy(found, targets) for output, found in rows[BASELINE].items()}
    for key, outputs in rows.items():
        for output, probabilities in outputs.items():
            accuracy = _accuracy(probabilities, targets)
            comparison = compare(*key, output, rows[BASELINE][output], probabilities)
            results.append(Labelled(comparison, accuracy, accuracy - accuracies[output]))
    failures += [reason for result in results for reason in result.failures()]
    failures += _accuracy_failures(bundle, speech, accuracies[FUSED])
    return LabelledReport(speech, tuple(results), tuple(failures))


def _score(
    bundle: Bundle,
    found: Sequence[Candidate],
    speech: LabelledSpeech,
    failures: list[str],
    progress: Progress | None,
) -> dict[tuple[str, str], dict[str, Rows]]:
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
        batches: dict[tuple[str, str], list[dict[str, Rows]]] = {key: [] for key in engines}
        for waveform in read_batches(speech.sources, bundle.manifest.clip, _BATCH):
            for key, engine in list(engines.items()):
                try:
                    batches[key].append(_outputs(bundle, engine, waveform))
                except SerError as error:
                    failures.append(f"{' '.join(key)}: {error}")
                    del engines[key], batches[key]
            if progress is not None:
                progress(len(waveform))
    return {
        key: {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}
        for key, parts in batches.items()
    }


def _outputs(bundle: Bundle, engine: Engine, waveform: Any) -> dict[str, Rows]:
    rows = dict(engine.run(waveform))
    with np.errstate(invalid="ignore"):
        return {**rows, FUSED: bundle.fusion(rows)}


def _accuracy(rows: Rows, targets: np.ndarray) -> float:
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
