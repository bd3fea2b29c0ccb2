"""One branch, torch → ONNX: a single file with the front-end and the softmax inside, equal to what was trained.

Exporter, opset and attention are those whose graph every runtime builds (docs/architecture.md): torch's dynamo
exporter at opset 20, eager attention, weight norm folded into its convolution.
"""

from __future__ import annotations

import ast
import copy
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ser_batch.bundle.fusion import Embeddings, Fusion, Probabilities
from ser_batch.bundle.manifest import EMBEDDING, Branch, Embedding
from ser_batch.bundle.reference import Reference, synthetic_clips
from ser_batch.clips import ClipRule, Waveform
from ser_batch.engines.protocol import FRONTEND_KEY, LABELS_KEY
from ser_batch.errors import ExportError
from ser_batch.machine import package_version
from ser_batch.verification.compare import embedding_differences
from ser_batch.verification.records import EMBEDDING_TOLERANCES, EXACT
from training.models.context import ContextBranch

OPSET = 20
"""23 brings Attention operators that TensorRT for RTX refuses; 18 needs half as many nodes again."""
TOLERANCE = 1e-4
"""Largest |Δp| between torch and the graph, both in float32."""
BRANCH_KEY, OPSET_KEY = "branch", "opset"
"""Keys of the metadata beside `LABELS_KEY` and `FRONTEND_KEY`."""
INPUT, OUTPUT = "waveform", "probabilities"
OUTPUTS = (OUTPUT, EMBEDDING)
PRODUCER = "ser-batch"
FRONTEND_MODULES = frozenset({"branch.decimate", "branch.frontend", "branch.standardise"})
"""Modules of a `Probabilistic` branch that every precision leaves in float32: decibels do not survive rounding."""
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_TRACED_BATCH = 2
"""A batch of 1 would be traced as a constant."""
_CHATTY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@dataclass(frozen=True, eq=False)
class Exported:
    """One exported graph, and how it compared with torch."""

    name: str
    path: Path
    nodes: int
    seconds: float
    """Of the export and the comparison."""
    max_difference: float
    """Largest |Δp| on the reference clips, in one batch and alone."""
    probabilities: Probabilities
    """(N, C) of torch for `synthetic_clips`."""
    embedding: Embeddings | None = None
    """(N, D) of torch for them, of a branch that has one."""

    @property
    def branch(self) -> Branch:
        """The branch of a bundle that holds the graph under its file's name."""
        embedding = None if self.embedding is None else Embedding(EMBEDDING, self.embedding.shape[1])
        return Branch(self.name, self.path.name, INPUT, OUTPUT, embedding)

    def __str__(self) -> str:
        size = self.path.stat().st_size / 1e6
        compared = f"max |Δp| to torch {self.max_difference:.1e}, {self.seconds:.1f} s"
        return f"{self.name}: {self.nodes} nodes, {size:.2f} MB, {compared}"


class Probabilistic(nn.Module):
    """A branch with the softmax that serving needs.

    Shape: waveform (B, samples) → probabilities (B, C), and of a branch that has an embedding that, too (B, D).
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of `waveform`, and the embedding if the branch has one."""
        if isinstance(self.branch, ContextBranch):
            logits, embedding = self.branch.logits_and_embedding(waveform)
            return logits.softmax(dim=1), embedding
        return (self.branch(waveform).softmax(dim=1),)


def export_branch(branch: nn.Module, path: Path, *, name: str, labels: tuple[str, ...], clip: ClipRule) -> Exported:
    """Write `branch` to `path` as ONNX and compare the two on the reference clips; `branch` is left as it is.

    Args:
        branch: waveform (B, clip.samples) float32 in [-1, 1] → logits (B, C).
        name: of the branch; it goes into the metadata with labels, opset and version.

    Raises:
        ExportError: torch cannot export it, the graph is invalid, or it differs from torch by more than TOLERANCE.
    """
    began = time.perf_counter()
    waveform = synthetic_clips(clip)
    model = Probabilistic(copy.deepcopy(branch)).float().cpu().eval()
    with _exact_attention(), torch.inference_mode():
        # Taken before anything is folded, so that the comparison covers the folding too.
        expected = [rows.numpy() for rows in model(torch.from_numpy(waveform))]
    _check_probabilities(name, expected[0], labels)
    _simplify(model)
    proto = _to_onnx(model, clip.samples, name, OUTPUTS[: len(expected)])
    _check_batch(proto, name)
    _describe(proto, name, labels)
    _save(proto, path)
    differences = largest_differences(path, waveform, dict(zip(OUTPUTS, expected, strict=False)))
    for output, difference in differences.items():
        if not difference <= (bound := TOLERANCE if output == OUTPUT else EMBEDDING_TOLERANCES[EXACT]):
            raise ExportError(
                f"the graph of branch {name} is not equal to the branch",
                got=f"{output}: a largest difference of {difference:.2e}",
                expected=f"at most {bound:.0e}",
            )
    seconds = time.perf_counter() - began
    return Exported(name, path, len(proto.graph.node), seconds, differences[OUTPUT], *expected)


def reference_of(exports: Sequence[Exported], fusion: Fusion, clip: ClipRule) -> Reference:
    """The reference clips of a bundle of these branches: what torch gave for them."""
    rows = {export.name: export.probabilities for export in exports}
    embedding = next((export.embedding for export in exports if export.embedding is not None), None)
    return Reference(synthetic_clips(clip), rows, fusion(rows), embedding)


def _check_probabilities(name: str, rows: Probabilities, labels: tuple[str, ...]) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(labels):
        raise ExportError(f"branch {name} does not fit the labels", got=rows.shape, expected=f"(B, {len(labels)})")
    if not np.isfinite(rows).all():
        clip = int(np.isfinite(rows).all(axis=1).argmin())
        raise ExportError(f"branch {name} gives values that are not finite in torch", got=f"reference clip {clip}")


def _simplify(model: nn.Module) -> None:
    """Fold weight norm, and choose the attention whose graph has no leftovers of masks."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _fold(module)
        choose_attention = getattr(module, "set_attn_implementation", None)
        if callable(choose_attention):  # a model of transformers
            choose_attention("eager")


def _fold(module: nn.Module) -> None:
    """Put plain parameters in the place of parametrized ones.

    `parametrize.remove_parametrizations` would also take the weights from the branch this is a copy of: it deletes
    a property of the class that `register_parametrization` made, and a deep copy shares that class.
    """
    names = cast(nn.ModuleDict, module.parametrizations)
    values = {name: getattr(module, name).detach() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _to_onnx(model: nn.Module, samples: int, name: str, outputs: Sequence[str]) -> onnx.ModelProto:
    example = torch.zeros(_TRACED_BATCH, samples)
    try:
        with _exact_attention(), _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:
        # The exporter raises whatever its passes meet first: there is no closed list.
        raise ExportError(f"torch cannot export branch {name}", got=str(error).strip().partition("\n")[0]) from error
    # Typed as optional for the TorchScript exporter, which returns nothing.
    return cast(torch.onnx.ONNXProgram, program).model_proto


def _check_batch(proto: onnx.ModelProto, name: str) -> None:
    """The exporter falls back on a fixed batch without a word where a branch reads it as a Python number."""
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportError(
            f"the graph of branch {name} has a fixed batch size",
            got=batch.dim_value,
            remedy="Let the branch reshape with -1 or tensor.shape[0], not with len(tensor).",
        )


def _describe(proto: onnx.ModelProto, name: str, labels: tuple[str, ...]) -> None:
    """Replace the exporter's notes, which hold stack traces with local paths, by what a reader of the file needs."""
    graph = proto.graph
    frontend = frontend_output(proto)
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.name = name
    proto.producer_name, proto.producer_version = PRODUCER, str(package_version(PRODUCER))
    properties = {LABELS_KEY: json.dumps(labels, ensure_ascii=False), BRANCH_KEY: name, OPSET_KEY: str(OPSET)}
    if frontend is not None:
        properties[FRONTEND_KEY] = frontend
    onnx.helper.set_model_props(proto, properties)


def frontend_output(proto: onnx.ModelProto) -> str | None:
    """The tensor where the front-end of a graph ends, by the exporter's notes; None if the branch has no front-end.

    Raises:
        ExportError: sound reaches the probabilities past that tensor, so that no cut there keeps the front-end whole.
    """
    boundary = None
    for node in proto.graph.node:  # in topological order
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES_KEY), "[]")
        if not FRONTEND_MODULES.isdisjoint(ast.literal_eval(scopes)):
            boundary = node.output[0]
    if boundary is None:
        return None
    reached = {proto.graph.input[0].name}
    for node in proto.graph.node:
        # A batch size that is read off the waveform is no sound.
        if node.op_type != "Shape" and boundary not in node.output and not reached.isdisjoint(node.input):
            reached.update(node.output)
    if past := reached.intersection(output.name for output in proto.graph.output):
        raise ExportError(
            "the front-end does not end in one tensor",
            got=f"a way from {proto.graph.input[0].name} to {', '.join(sorted(past))} past {boundary}",
            expected=f"all of {', '.join(sorted(FRONTEND_MODULES))} before the rest of the branch",
        )
    return boundary


def _save(proto: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.save(proto, path)
        onnx.checker.check_model(path, full_check=True)
    except (OSError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path} cannot be written as a valid ONNX model of one file", got=error) from error


def largest_differences(
    path: Path, waveform: Waveform, expected: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Output → largest difference of a graph in ONNX Runtime from `expected`, over one batch and each clip alone.

    Of probabilities it is |Δp|, of an embedding `embedding_differences`; NaN counts.

    Raises:
        ExportError: ONNX Runtime is missing or refuses the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ExportError(
            "an export is checked in ONNX Runtime, which is missing",
            got=error,
            remedy="Install it: pip install 'ser-batch[cpu]'.",
        ) from error
    try:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        batches = [waveform, *(waveform[i : i + 1] for i in range(len(waveform)))]
        runs = [session.run(list(expected), {INPUT: batch}) for batch in batches]
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses {path}", got=error) from error
    found = {output: np.concatenate([run[index] for run in runs]) for index, output in enumerate(expected)}
    twice = {output: np.concatenate([rows, rows]) for output, rows in expected.items()}
    return {
        output: float((embedding_differences if output == EMBEDDING else _distances)(twice[output], rows).max())
        for output, rows in found.items()
    }


def _distances(expected: Probabilities, found: Probabilities) -> npt.NDArray[np.float32]:
    return np.abs(found - expected)


@contextmanager
def _exact_attention() -> Iterator[None]:
    """Keep torch.nn.TransformerEncoder off its fused kernel, which has no ONNX form; put back what was set."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on passes that found nothing to do; what fails is raised."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
