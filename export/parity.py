"""Whether a bundle gives what was trained, in every runtime at hand: neither torch nor audio files are needed.

The probabilities in the bundle's reference.npz came from torch. Each engine recomputes them, in one batch and each
clip alone, and each output (every branch, and the fusion) is one comparison, judged by the gate of its precision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from export.candidates import Candidate, Candidates, candidates
from export.gates import EXACT, GATES
from export.metadata import LABELS_KEY, SOURCE_KEY, read_metadata
from ser_batch.bundle.bundle import Branch, Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.reference import Reference
from ser_batch.engines.protocol import Engine
from ser_batch.errors import BundleError, EngineError, ExportError, SerError

Rows = npt.NDArray[np.floating]

TOLERANCES: Mapping[str, float] = {precision: gate.max_difference for precision, gate in GATES.items()}
"""Precision → largest |Δp| allowed on the reference clips."""


@dataclass(frozen=True)
class Comparison:
    """One output of one engine against the reference."""

    engine: str
    precision: str
    output: str
    """A branch, or "fused"."""
    rows: int
    """Rows compared: every clip in one batch, and once more alone."""
    max_difference: float | None
    """Largest |Δp| of the finite values; None if there is none."""
    mean_difference: float | None
    flips: int
    """Rows whose most probable label is another one, or cannot be told."""
    non_finite: int
    """Values that are NaN or infinite."""
    device: str = "cpu"

    def failures(self) -> Iterator[str]:
        """Each reason why this comparison does not pass."""
        where = f"{self.engine} {self.precision}, {self.output}"
        tolerance = TOLERANCES.get(self.precision)
        if tolerance is None:
            yield f"{where}: no tolerance is stated for this precision"
        if self.rows == 0:
            yield f"{where}: nothing was compared"
        if self.non_finite:
            yield f"{where}: {self.non_finite} values are not finite"
        if tolerance is not None and self.max_difference is not None and self.max_difference > tolerance:
            yield f"{where}: max |Δp| {self.max_difference:.2e} is over the tolerance of {tolerance:.0e}"
        if self.flips and self.precision == EXACT and not self.non_finite:
            yield f"{where}: {self.flips} labels are others, where none may be"


@dataclass(frozen=True)
class Report:
    """What `verify` found; it passes only if something was compared and nothing failed."""

    bundle: str
    """The bundle's id."""
    comparisons: tuple[Comparison, ...]
    failures: tuple[str, ...]
    absent: Mapping[str, str]
    """Runtime, or runtime and precision → why it could not be compared here."""

    @property
    def passed(self) -> bool:
        """Whether every comparison there had to be was made, and passed."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {"passed": self.passed, "tolerances": dict(TOLERANCES), **asdict(self)}


def verify(
    bundle: Bundle,
    backends: Sequence[str] | None = None,
    threads: int | None = None,
    listed: Candidates | None = None,
) -> Report:
    """Recompute the reference probabilities of `bundle` and compare.

    Args:
        backends: runtimes to compare, each of which must be there; None: every one that is installed.
        threads: CPU threads of a runtime; None leaves the choice to it.
        listed: what to compare, if that is not `candidates(bundle, backends, threads)`.

    Raises:
        BundleError: the bundle holds no usable reference clips.
    """
    reference = bundle.reference()
    listed = listed or candidates(bundle, backends, threads)
    absent, comparisons = dict(listed.absent), []
    failures = [*label_failures(bundle), *source_failures(bundle), *listed.failures]
    for candidate in listed.found:
        try:
            comparisons += _compare_candidate(bundle, reference, candidate)
        except BundleError as error:
            # The bundle was verified when it was opened: all that can be missing is a graph not made yet.
            absent[" ".join(candidate.key)] = str(error)
        except SerError as error:
            failures.append(f"{' '.join(candidate.key)}: {error}")
    failures += [reason for comparison in comparisons for reason in comparison.failures()]
    if not comparisons:
        missing = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        failures.append("nothing was compared" + (f" ({missing})" if missing else ""))
    return Report(bundle.id, tuple(comparisons), tuple(failures), absent)


def compare(engine: str, precision: str, output: str, expected: Rows, found: Rows) -> Comparison:
    """Compare `found` with `expected`, (N, C) probabilities each; EngineError if `found` is of another shape."""
    if found.shape != expected.shape:
        raise EngineError(f"{output} has another shape on {engine}", got=found.shape, expected=expected.shape)
    difference = np.abs(found.astype(np.float64) - expected)
    finite = np.isfinite(difference)
    measured = difference[finite]
    same = (found.argmax(axis=1) == expected.argmax(axis=1)) & finite.all(axis=1)
    return Comparison(
        engine=engine,
        precision=precision,
        output=output,
        rows=len(expected),
        max_difference=float(measured.max()) if measured.size else None,
        mean_difference=float(measured.mean()) if measured.size else None,
        flips=int((~same).sum()),
        non_finite=int((~finite).sum()),
    )


def _compare_candidate(bundle: Bundle, reference: Reference, candidate: Candidate) -> list[Comparison]:
    engine = candidate.open()
    try:
        found = _score(bundle, engine, reference)
        expected = {**reference.branches, FUSED: reference.fused}
        # Twice: the reference was taken once, the engine ran the clips in a batch and alone.
        twice = {output: np.concatenate([rows, rows]) for output, rows in expected.items()}
        compared = [compare(*candidate.key, output, rows, found[output]) for output, rows in twice.items()]
        return [replace(comparison, device=engine.device) for comparison in compared]
    finally:
        engine.close()


def _score(bundle: Bundle, engine: Engine, reference: Reference) -> dict[str, Rows]:
    """Output → (2N, C): the reference clips in one batch, then one by one.

    The engine is asked directly: the scorer would refuse values that are not finite, where here they are counted.
    """
    clips = reference.waveform
    runs = [engine.run(batch) for batch in (clips, *np.split(clips, len(clips)))]
    rows = {branch.name: np.concatenate([run[branch.name] for run in runs]) for branch in bundle.manifest.branches}
    with np.errstate(invalid="ignore"):
        return {**rows, FUSED: bundle.fusion(rows)}


def label_failures(bundle: Bundle) -> Iterator[str]:
    """Where labels are written beside the manifest, they must be the same in the same order.

    No probability can show labels that were permuted consistently, so each graph must carry them, and those that
    the training run recorded count as a further witness.
    """
    expected = list(bundle.labels)
    witnesses = {branch.file: _graph_labels(bundle, branch) for branch in bundle.manifest.branches}
    if "labels" in bundle.manifest.provenance:
        witnesses["the training run's record"] = bundle.manifest.provenance["labels"]
    for witness, labels in witnesses.items():
        if labels is None:
            yield f"{witness} carries no labels, so their order cannot be checked"
        elif labels != expected:
            permuted = isinstance(labels, list) and sorted(map(str, labels)) == sorted(expected)
            yield f"{witness} has {'permuted' if permuted else 'other'} labels: {labels!r}, the manifest {expected}"


def source_failures(bundle: Bundle) -> Iterator[str]:
    """A graph of lower precision must have been made from the fp32 graph that is in the bundle now."""
    for precision in GATES:
        for branch in bundle.manifest.branches:
            member = f"precisions/{precision}/{branch.name}.onnx"
            if member not in bundle.manifest.files:
                continue
            path = bundle.path(member)
            try:
                source = read_metadata(path).get(SOURCE_KEY)
            except ExportError:
                source = None
            if source != bundle.manifest.files[branch.file]:
                yield f"{member} was not made from this bundle's {branch.file}"


def _graph_labels(bundle: Bundle, branch: Branch) -> Any:
    """The labels a graph carries, in whatever form; None if it has none, or is no graph."""
    try:
        raw = read_metadata(bundle.path(branch.file)).get(LABELS_KEY)
    except ExportError:
        return None  # the runtimes will say so, too
    try:
        return None if raw is None else json.loads(raw)
    except ValueError:
        return raw
