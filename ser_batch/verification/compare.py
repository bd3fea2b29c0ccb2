"""Whether a bundle gives what was trained, on its reference clips: neither torch nor audio files are needed.

The probabilities in the bundle's reference.npz came from torch. Each runtime recomputes them in each of its precisions,
in one batch and each clip alone, and each output (every branch, and the fusion) is one comparison, judged by the
tolerance of its precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.manifest import EMBEDDING, Branch, graph_member
from ser_batch.bundle.reference import Reference
from ser_batch.clips import Waveform
from ser_batch.engines.protocol import (
    LABELS_KEY,
    Engine,
    available_backends,
    backend_version,
    open_engine,
    precisions,
)
from ser_batch.errors import BundleError, EngineError, SerError
from ser_batch.verification.metadata import SOURCE_KEY, read_metadata
from ser_batch.verification.records import EMBEDDING_TOLERANCES, EXACT, TOLERANCES, Difference

Rows = npt.NDArray[np.floating[Any]]
Key = tuple[str, str]
"""Backend and precision."""
BASELINE: Key = ("onnxruntime", "fp32")
"""What speeds, and rows on labelled speech, are compared with."""
FROM_FP32 = frozenset({("openvino", "bf16")})
"""What a runtime makes of the fp32 graph by itself."""


@dataclass(frozen=True)
class Candidate:
    """One runtime in one precision, not yet opened."""

    backend: str
    """"onnxruntime"; or what is no backend of a run: "torch", "emulated"."""
    precision: str
    version: str
    open: Callable[[], Engine]
    graphs: Mapping[str, str] = field(default_factory=dict)
    """File of the bundle → sha256, of each graph of lower precision that it reads."""
    open_with_embedding: Callable[[], Engine] | None = None
    """Opens it with the embedding, if the bundle has one; None: `open` does."""

    @property
    def key(self) -> Key:
        """Backend and precision."""
        return self.backend, self.precision


@dataclass
class Candidates:
    """What can be compared, and what cannot."""

    found: list[Candidate] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Runtime, or runtime and precision → why it cannot be compared here."""
    failures: list[str] = field(default_factory=list)
    """Runtimes that were asked for and are not there."""


def candidates(bundle: Bundle, backends: Sequence[str] | None = None, threads: int | None = None) -> Candidates:
    """List what `bundle` can be compared in.

    Args:
        backends: runtimes, each of which must be there; None: every one that is installed.
        threads: CPU threads of a runtime; None leaves the choice to it.
    """
    listed, reasons = Candidates(), available_backends()
    chosen = [name for name, reason in reasons.items() if reason is None] if backends is None else backends
    listed.absent.update({name: why for name, why in reasons.items() if why is not None and name not in chosen})
    for backend in dict.fromkeys(chosen):
        try:
            supported = precisions(backend)
        except SerError as error:
            listed.failures.append(f"{backend}: {error}")
            continue
        for precision, reason in supported.items():
            if reason is not None:
                listed.absent[f"{backend} {precision}"] = reason
            else:
                listed.found.append(_candidate(bundle, backend, precision, threads))
    return listed


def lower_graphs(bundle: Bundle, precision: str) -> dict[str, str]:
    """File → sha256 of the branches' graphs in a lower precision, as far as the bundle has them."""
    members = [graph_member(branch, precision) for branch in bundle.manifest.branches if precision != EXACT]
    return {member: bundle.manifest.files[member] for member in members if member in bundle.manifest.files}


@dataclass(frozen=True)
class Comparison:
    """One output of one engine against the reference."""

    engine: str
    precision: str
    output: str
    """A branch, "fused", or "embedding"."""
    rows: int
    """Rows compared: on the reference clips, every clip in one batch, and once more alone."""
    max_difference: float | None
    """Largest |Δp| of the finite values; of an embedding see `embedding_differences`; None if there is none."""
    mean_difference: float | None
    flips: int
    """Rows whose most probable label is another one, or unknown."""
    non_finite: int
    """Values that are NaN or infinite."""
    device: str = "cpu"

    @property
    def key(self) -> Key:
        """Backend and precision."""
        return self.engine, self.precision

    @property
    def bound(self) -> float | None:
        """What `max_difference` may be; None: nothing is stated for this precision."""
        tolerance = TOLERANCES.get(self.precision)
        if self.output == EMBEDDING or tolerance is None:
            return EMBEDDING_TOLERANCES.get(self.precision)
        return tolerance.max_difference

    @property
    def difference(self) -> Difference:
        """What a certificate says of it."""
        return Difference(
            self.output, self.rows, self.max_difference, self.mean_difference, self.flips, self.non_finite
        )

    def failures(self) -> Iterator[str]:
        """Each reason why this comparison does not pass."""
        where = f"{self.engine} {self.precision}, {self.output}"
        if self.bound is None:
            yield f"{where}: no tolerance is stated for this precision"
        if self.rows == 0:
            yield f"{where}: nothing was compared"
        if self.non_finite:
            yield f"{where}: {self.non_finite} values are not finite"
        if self.bound is not None and self.max_difference is not None and self.max_difference > self.bound:
            what = "relative distance" if self.output == EMBEDDING else "|Δp|"
            yield f"{where}: max {what} {self.max_difference:.2e} is over the tolerance of {self.bound:.0e}"
        if self.flips and self.precision == EXACT and not self.non_finite:
            yield f"{where}: {self.flips} labels are others, where none may be"


@dataclass(frozen=True)
class Report:
    """What `compare_reference` found; it passes only if something was compared and nothing failed."""

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
        tolerances = {precision: tolerance.max_difference for precision, tolerance in TOLERANCES.items()}
        return {"passed": self.passed, "tolerances": tolerances, **asdict(self)}


def compare_reference(bundle: Bundle, listed: Candidates) -> Report:
    """Recompute the reference probabilities of `bundle` in all that is `listed`, and compare.

    Raises:
        BundleError: the bundle holds no usable reference clips.
    """
    reference = bundle.reference()
    absent: dict[str, str] = dict(listed.absent)
    comparisons: list[Comparison] = []
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


def compare_embedding(engine: str, precision: str, expected: Rows, found: Rows) -> Comparison:
    """Compare `found` with `expected`, (N, D) embeddings each; EngineError if `found` is of another shape."""
    if found.shape != expected.shape:
        raise EngineError(f"the embedding has another shape on {engine}", got=found.shape, expected=expected.shape)
    distances = embedding_differences(expected, found)
    measured = distances[np.isfinite(distances)]
    return Comparison(
        engine=engine,
        precision=precision,
        output=EMBEDDING,
        rows=len(expected),
        max_difference=float(measured.max()) if measured.size else None,
        mean_difference=float(measured.mean()) if measured.size else None,
        flips=0,
        non_finite=int((~np.isfinite(found)).sum()),
    )


def embedding_differences(expected: Rows, found: Rows) -> Rows:
    """How far each of (N, D) embeddings is from the expected one, relative to the root mean square of their lengths."""
    size = np.sqrt((expected.astype(np.float64) ** 2).sum(axis=1).mean())
    distances: Rows = np.linalg.norm(found.astype(np.float64) - expected, axis=1) / max(size, np.finfo(float).tiny)
    return distances


def outputs_of(bundle: Bundle, engine: Engine, waveform: Waveform) -> dict[str, Rows]:
    """Output (each branch, "fused", and the embedding if there is one) → rows of an engine for (B, samples).

    The engine is asked directly: the scorer would refuse values that are not finite, where here they are counted.
    """
    found = engine.run(waveform)
    rows: dict[str, Rows] = {branch.name: found[branch.name] for branch in bundle.manifest.branches}
    with np.errstate(invalid="ignore"):
        fused = {FUSED: bundle.fusion(rows, found.get(EMBEDDING))}
    return {**rows, **fused, **({EMBEDDING: found[EMBEDDING]} if EMBEDDING in found else {})}


def label_failures(bundle: Bundle) -> Iterator[str]:
    """Where labels are written beside the manifest, they must be the same in the same order.

    No probability can show labels that were permuted consistently, so each graph must state them, and those that
    the training run recorded count as a further witness.
    """
    of_graphs, of_record = list(bundle.branch_labels), list(bundle.labels)
    witnesses = {branch.file: (_graph_labels(bundle, branch), of_graphs) for branch in bundle.manifest.branches}
    if "labels" in bundle.manifest.provenance:
        witnesses["the training run's record"] = (bundle.manifest.provenance["labels"], of_record)
    for witness, (labels, expected) in witnesses.items():
        if labels is None:
            yield f"{witness} has no labels, so their order cannot be checked"
        elif labels != expected:
            permuted = isinstance(labels, list) and sorted(map(str, labels)) == sorted(expected)
            yield f"{witness} has {'permuted' if permuted else 'other'} labels: {labels!r}, the manifest {expected}"


def source_failures(bundle: Bundle) -> Iterator[str]:
    """A graph of lower precision must have been made from the fp32 graph that is in the bundle now."""
    for branch in bundle.manifest.branches:
        for member in (graph_member(branch, precision) for precision in TOLERANCES if precision != EXACT):
            if member not in bundle.manifest.files:
                continue
            try:
                source = read_metadata(bundle.path(member)).get(SOURCE_KEY)
            except BundleError:
                source = None
            if source != bundle.manifest.files[branch.file]:
                yield f"{member} was not made from this bundle's {branch.file}"


def _candidate(bundle: Bundle, backend: str, precision: str, threads: int | None) -> Candidate:
    return Candidate(
        backend,
        precision,
        backend_version(backend),
        open=lambda: open_engine(bundle, backend, threads, precision),
        graphs={} if (backend, precision) in FROM_FP32 else lower_graphs(bundle, precision),
        open_with_embedding=None
        if bundle.manifest.embedding is None
        else lambda: open_engine(bundle, backend, threads, precision, embedding=True),
    )


def _compare_candidate(bundle: Bundle, reference: Reference, candidate: Candidate) -> list[Comparison]:
    engine, clips = (candidate.open_with_embedding or candidate.open)(), reference.waveform
    try:
        runs = [outputs_of(bundle, engine, batch) for batch in (clips, *np.split(clips, len(clips)))]
        compared = []
        for output, rows in {**reference.branches, FUSED: reference.fused}.items():
            # Twice: the reference was taken once, the engine ran the clips in a batch and alone.
            found = np.concatenate([run[output] for run in runs])
            compared.append(compare(*candidate.key, output, np.concatenate([rows, rows]), found))
        if reference.embedding is not None:
            rows, missing = reference.embedding, np.empty((0, 0), np.float32)
            found = np.concatenate([run.get(EMBEDDING, missing) for run in runs])
            compared.append(compare_embedding(*candidate.key, np.concatenate([rows, rows]), found))
        return [replace(comparison, device=engine.device) for comparison in compared]
    finally:
        engine.close()


def _graph_labels(bundle: Bundle, branch: Branch) -> Any:
    """The labels that a graph states, in whatever form; None if it has none, or is no graph."""
    try:
        raw = read_metadata(bundle.path(branch.file)).get(LABELS_KEY)
    except BundleError:
        return None  # the runtimes will say so, too
    try:
        return None if raw is None else json.loads(raw)
    except ValueError:
        return raw
