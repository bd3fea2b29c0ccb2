"""A bundle's graphs in lower precisions, made from its fp32 graphs, checked, and added to it.

One graph a branch and precision serves every runtime: ONNX Runtime, OpenVINO and TensorRT read the same file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.emulation import emulated, session
from export.float_precision import TYPES, to_float_precision
from export.int8 import QUANTISED, SPARED, to_int8
from export.onnx import OPSET_KEY
from ser_batch.bundle.bundle import Branch, Bundle
from ser_batch.bundle.manifest import graph_member
from ser_batch.bundle.writing import add_artefacts, copy_bundle
from ser_batch.engines.protocol import wanted_outputs
from ser_batch.errors import ExportError
from ser_batch.recordings.recording import Recording
from ser_batch.verification.compare import embedding_differences
from ser_batch.verification.metadata import SOURCE_KEY
from ser_batch.verification.records import EMBEDDING_TOLERANCES, EXACT, TOLERANCES
from ser_batch.verification.speech import find_speech

PRECISIONS = tuple(TOLERANCES)
PRECISION_KEY = "precision"
"""Key under which a graph that was made from another states its precision: "int8"."""
CALIBRATION_KEY = "calibration"
"""Key under which it says what its ranges were taken from."""
CALIBRATION_CLIPS = 128
"""Recordings that int8 is calibrated on, evenly spaced over those given."""


@dataclass(frozen=True)
class Lowered:
    """One branch's graph in one precision."""

    branch: str
    precision: str
    nodes: int
    size: int
    """Bytes."""
    max_difference: float
    """Largest |Δp| from torch on the reference clips; of fp16 and bf16 as emulated on the CPU."""

    def __str__(self) -> str:
        compared = f"max |Δp| to torch {self.max_difference:.1e} on the reference clips"
        return f"{self.branch} {self.precision}: {self.nodes} nodes, {self.size / 1e6:.2f} MB, {compared}"


Progress = Callable[[Lowered], None]


def quantize(
    bundle: Bundle,
    precisions: Sequence[str],
    *,
    calibration: Path | None = None,
    convolutions: bool = False,
    spared: int = SPARED,
    out: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Make the graphs of `bundle` in each of `precisions` and add them to it, or to a copy of it at `out`.

    Args:
        precisions: of `PRECISIONS`; fp32 is what a bundle has.
        calibration: folder of recorded speech, which int8 needs.
        convolutions: quantise them in int8, too: see `export.int8`.
        spared: matrix products of each branch that int8 leaves as they are, the costliest in accuracy.
        replace: make graphs again that are there.
        progress: called after each graph.

    Raises:
        AudioError, InputError: the speech cannot be found or decoded.
        BundleError, ExportError: a graph cannot be converted, or is not what was trained once it is.
        OutputError: `out` exists, the graphs are there already, or the bundle cannot be written.
    """
    wanted = check_request(precisions, calibration)
    speech = find_speech(calibration, CALIBRATION_CLIPS) if calibration is not None else ()
    operators = (*QUANTISED, "Conv") if convolutions else QUANTISED
    files: dict[str, Path | bytes] = {}
    for precision in wanted:
        for branch in bundle.manifest.branches:
            graph, lowered = lower(bundle, branch, precision, speech, operators, spared)
            files[graph_member(branch, precision)] = graph.SerializeToString(deterministic=True)
            if progress is not None:
                progress(lowered)
    target = bundle if out is None else copy_bundle(bundle, out)
    return add_artefacts(target, files, replace=replace) if files else target


def check_request(precisions: Sequence[str], calibration: Path | None) -> list[str]:
    """The precisions for which there is something to do; ExportError for one that cannot be made, before any work."""
    wanted = [precision for precision in dict.fromkeys(precisions) if precision != EXACT]
    if unknown := sorted(set(wanted) - set(PRECISIONS)):
        raise ExportError("there is no such precision", got=", ".join(unknown), expected=" or ".join(PRECISIONS))
    if "int8" in wanted and calibration is None:
        raise ExportError("int8 cannot be calibrated without recorded speech", remedy="Give --calibration DIR.")
    return wanted


def lower(
    bundle: Bundle,
    branch: Branch,
    precision: str,
    speech: Sequence[Recording] = (),
    operators: Sequence[str] = QUANTISED,
    spared: int = SPARED,
) -> tuple[onnx.ModelProto, Lowered]:
    """The graph of a branch in a lower precision, and how far it is from torch on the reference clips.

    Raises:
        ExportError: it cannot be made, gives values that are not finite, or is beyond the tolerance of the precision.
    """
    source = onnx.load(bundle.path(branch.file))
    if precision in TYPES:
        graph = to_float_precision(source, precision)
        runnable = emulated(graph, precision)
    else:
        graph = runnable = to_int8(source, speech, bundle.manifest.clip, operators, spared)
    _describe(graph, source, precision, bundle.manifest.files[branch.file], len(speech) if precision == "int8" else 0)
    difference = _difference(runnable, bundle, branch, precision)
    return graph, Lowered(branch.name, precision, len(graph.graph.node), graph.ByteSize(), difference)


def _describe(
    graph: onnx.ModelProto, source: onnx.ModelProto, precision: str, source_sha256: str, calibrated_on: int
) -> None:
    opset = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    properties = {entry.key: entry.value for entry in source.metadata_props}
    properties |= {PRECISION_KEY: precision, SOURCE_KEY: source_sha256, OPSET_KEY: str(opset)}
    if calibrated_on:
        properties[CALIBRATION_KEY] = f"range of {calibrated_on} recordings"
    onnx.helper.set_model_props(graph, properties)
    graph.graph.name = source.graph.name
    graph.producer_name, graph.producer_version = source.producer_name, source.producer_version
    with tempfile.TemporaryDirectory() as folder:
        # By its path, as a model beyond 2 GB could not be checked in memory.
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        onnx.checker.check_model(path, full_check=True)


def _difference(graph: onnx.ModelProto, bundle: Bundle, branch: Branch, precision: str) -> float:
    reference = bundle.reference()
    wanted = list(wanted_outputs(bundle, branch, True).values())
    rows, *others = session(graph).run(wanted, {branch.input: reference.waveform})
    finite = np.all([np.isfinite(each).all(axis=1) for each in (rows, *others)], axis=0)
    if not finite.all():
        clip = int(finite.argmin())
        raise ExportError(
            f"branch {branch.name} is not finite in {precision}",
            got=f"reference clip {clip}",
            remedy="Use bf16, which has the range of fp32." if precision == "fp16" else None,
        )
    difference = float(np.abs(rows - reference.branches[branch.name]).max())
    if difference > (allowed := TOLERANCES[precision].max_difference):
        raise ExportError(
            f"branch {branch.name} is too far from torch in {precision}",
            got=f"max |Δp| {difference:.1e}",
            expected=f"at most {allowed:.0e}",
        )
    for embedding in others if reference.embedding is not None else ():
        distance = float(embedding_differences(reference.embedding, embedding).max())
        if distance > (bound := EMBEDDING_TOLERANCES[precision]):
            raise ExportError(
                f"the embedding of branch {branch.name} is too far from torch in {precision}",
                got=f"max relative distance {distance:.1e}",
                expected=f"at most {bound:.0e}",
            )
    return difference
