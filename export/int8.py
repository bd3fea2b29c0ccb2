"""A branch's graph in int8: explicit QuantizeLinear and DequantizeLinear around products, calibrated on speech.

Weights are int8 a column, activations int8 a tensor, both symmetric, as TensorRT asks and ONNX Runtime and OpenVINO
take. Only matrix products with a constant weight are quantised; input, output and everything else stay float32. The
convolutions are left out: quantised with the rest they made wav2vec 2.0 unusable (max |Δp| 0.95).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.kept import kept_nodes
from export.speech import read_batches
from ser_batch.clip import ClipRule, Waveform
from ser_batch.errors import ExportError
from ser_batch.inputs.sources import Source

QUANTISED = ("MatMul",)
"""Operators that are quantised; with "Conv" the convolutions would be, too."""
_BATCH = 8


def to_int8(
    model: onnx.ModelProto, speech: Sequence[Source], clip: ClipRule, operators: Sequence[str] = QUANTISED
) -> onnx.ModelProto:
    """`model` with `operators` in int8, their activations' ranges those that `speech` gives.

    Raises:
        AudioError: a recording cannot be decoded.
        ExportError: no speech, ONNX Runtime is missing or refuses the graph, or nothing in it can be quantised.
    """
    if not speech:
        raise ExportError("int8 cannot be calibrated without recorded speech", remedy="Give --calibration DIR.")
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise ExportError(
            "int8 is calibrated in ONNX Runtime, which is missing",
            got=error,
            remedy="Install it: pip install 'ser-batch[export,cpu]'.",
        ) from error
    kept = kept_nodes(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                model,
                path,
                _Reader(model.graph.input[0].name, read_batches(speech, clip, _BATCH)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=sorted(kept),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                extra_options=_OPTIONS,
            )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ExportError("ONNX Runtime cannot quantise the graph", got=error) from error
        quantised = onnx.load(path)
    if not any(node.op_type == "QuantizeLinear" for node in quantised.graph.node):
        raise ExportError("nothing in the graph can be quantised", expected=f"{' or '.join(operators)} with a weight")
    return quantised


_OPTIONS: dict[str, Any] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    # Products of two activations, in attention, are small and gain nothing.
    "MatMulConstBOnly": True,
    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
    # A product's result goes on in float32: it would only be rounded for a bias to be added.
    "OpTypesToExcludeOutputQuantization": ["MatMul", "Conv"],
}


class _Reader:
    """Batches as onnxruntime.quantization reads them."""

    def __init__(self, name: str, batches: Iterator[Waveform]) -> None:
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice on pre-processing, which is for graphs that an exporter has not simplified."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
