"""A branch's graph in int8: explicit QuantizeLinear and DequantizeLinear around products, calibrated on speech.

Weights have one scale per column, activations one per tensor, both symmetric, as TensorRT asks and ONNX Runtime and
OpenVINO take; `export.int8_accuracy` makes them fit for that. Only matrix products with a constant weight are
quantised; input, output and everything else stay float32. The convolutions are left out, unless they are asked for and
`ser-batch verify --audio` allows it: quantised with the rest they made wav2vec 2.0 base unusable (max |Δp| 0.95).
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

from export.float_precision import fp32_nodes
from export.int8_accuracy import correct_biases, costliest, smooth
from ser_batch.clips import ClipRule, Waveform
from ser_batch.errors import ExportError
from ser_batch.recordings.recording import Recording
from ser_batch.verification.speech import read_batches

QUANTISED = ("MatMul",)
"""Operators that are quantised; with "Conv" the convolutions would be, too."""
SPARED = 2
"""Matrix products that stay in float32. With none Whisper base flips 1.5 % of labels, with two 0.8 %
(docs/benchmarks.md)."""
_BATCH = 8
_JUDGES = 16
"""Recordings, about, of those that calibrate, by which the products to spare are chosen."""


def to_int8(
    model: onnx.ModelProto,
    speech: Sequence[Recording],
    clip: ClipRule,
    operators: Sequence[str] = QUANTISED,
    spared: int = SPARED,
) -> onnx.ModelProto:
    """`model` with `operators` in int8, their activations' ranges those that `speech` gives.

    Args:
        spared: matrix products that stay in float32, those whose rounding changes the embedding most; one is quantised.

    Raises:
        AudioError: a recording cannot be decoded.
        ExportError: no speech, ONNX Runtime is missing or refuses the graph, or nothing in it can be quantised.
    """
    if not speech:
        raise ExportError("int8 cannot be calibrated without recorded speech", remedy="Give --calibration DIR.")
    products = quantisable(model, operators)
    if not products:
        raise ExportError("nothing in the graph can be quantised", expected=f"{' or '.join(operators)} with a weight")
    batches = list(read_batches(speech, clip, _BATCH))
    smoothed, quantised = _quantised(model, products, batches)
    if count := min(spared, len(products) - 1):
        judged = read_batches(speech[:: max(len(speech) // _JUDGES, 1)], clip, _BATCH)
        coarse = costliest(quantised, smoothed, products, judged, count)
        # Again, so that nothing is smoothed for them.
        products = [name for name in products if name not in coarse]
        smoothed, quantised = _quantised(model, products, batches)
    correct_biases(quantised, smoothed, products, batches)
    return quantised


def _quantised(
    model: onnx.ModelProto, products: Sequence[str], batches: Sequence[Waveform]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`model` smoothed, and that with `products` in int8, by batches (B, samples) of speech."""
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise ExportError(
            "int8 is calibrated in ONNX Runtime, which is missing",
            got=error,
            remedy="Install it: pip install 'ser-batch[export,cpu]'.",
        ) from error
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(model)
    smooth(smoothed, products, batches)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # A file, since of a model in memory it moves the weights to a file of its own.
        source, path = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(smoothed, source)
        try:
            quantize_static(
                source,
                path,
                _Reader(model.graph.input[0].name, iter(batches)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list({node.op_type for node in model.graph.node if node.name in products}),
                nodes_to_quantize=list(products),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                extra_options=_OPTIONS,
            )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ExportError("ONNX Runtime cannot quantise the graph", got=error) from error
        quantised = onnx.load(path)
    _spare_the_others(quantised, set(products))
    return smoothed, quantised


def quantisable(model: onnx.ModelProto, operators: Sequence[str] = QUANTISED) -> list[str]:
    """Names of the nodes of `operators` that have a weight and need not stay in float32.

    Products of two activations, in attention, are small and gain nothing.
    """
    in_fp32, weights = fp32_nodes(model), {weight.name for weight in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in operators and node.input[1] in weights and node.name not in in_fp32
    ]


def _spare_the_others(model: onnx.ModelProto, products: set[str]) -> None:
    """Give what else reads a quantised tensor, residual sums first of all, the tensor as it was before."""
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name in products or node.op_type == "DequantizeLinear":
            continue
        for index, name in enumerate(node.input):
            if name in made and made[name].op_type == "DequantizeLinear":
                quantised = made[made[name].input[0]]
                node.input[index] = quantised.input[0]


_OPTIONS: dict[str, Any] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
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
