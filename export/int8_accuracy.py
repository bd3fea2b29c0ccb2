"""What keeps int8 accurate: inputs smoothed before they are quantised, biases corrected after, the worst products kept.

Smoothing: a few channels of a speech encoder's activations are a hundred times larger than the rest, which is lost with
one scale per tensor. x W = (x / s) (s W) for any s > 0, and s_j = max|x_j|^α / max|W_j|^(1 − α) shares the difficulty
between the two factors (Xiao et al., SmoothQuant, ICML 2023, equation 4).

Correction: what rounding does to a product is not zero on average, where activations are mostly near zero and seldom
large, as after a GELU. E[x] W − E[q(x)] q(W) goes into the bias (Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, ICCV 2019, section 4.2).

Both cost a runtime next to nothing: int8 stays symmetric, as TensorRT asks, and what is added is a multiplication by a
constant. Products that are still too coarse are found by what each changes when it alone is rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.emulation import session
from export.float_precision import drop_unused_weights
from ser_batch.bundle.manifest import EMBEDDING
from ser_batch.clips import Waveform

ALPHA = 0.8
"""How much of the difficulty goes to the weights, which have one scale per column; docs/benchmarks.md has others."""
Array = npt.NDArray[np.float32]


def smooth(model: onnx.ModelProto, products: Sequence[str], batches: Iterable[Waveform]) -> None:
    """Smooth the inputs of the matrix products among `products`, in place; those that share an input share its scales.

    A product gets a weight of its own, since another node may read the one that it had.
    """
    chosen, weights = _matrix_products(model, products), _weights(model)
    for name, largest in _channel_maxima(model, [node.input[0] for node in chosen], batches).items():
        readers = {node.name: node for node in chosen if node.input[0] == name}
        arrays = [numpy_helper.to_array(weights[node.input[1]]) for node in readers.values()]
        rows = np.max([np.abs(array).max(axis=1) for array in arrays], axis=0)
        scales = np.maximum(largest, 1e-5) ** ALPHA / np.maximum(rows, 1e-5) ** (1 - ALPHA)
        smoothed = f"{name}_smoothed"
        factors = _add_weight(model, f"{name}_smoothing", 1 / scales)
        for node, array in zip(readers.values(), arrays, strict=True):
            node.input[:] = [smoothed, _add_weight(model, f"{node.name}_smoothed_weight", array * scales[:, None])]
        first = min(index for index, node in enumerate(model.graph.node) if node.name in readers)
        model.graph.node.insert(first, helper.make_node("Mul", [name, factors], [smoothed], f"{name}_smooth"))
    drop_unused_weights(model.graph)


def correct_biases(
    model: onnx.ModelProto, source: onnx.ModelProto, products: Sequence[str], batches: Iterable[Waveform]
) -> None:
    """Take the mean error of each matrix product out of the bias that is added to it, in place.

    A product to which no bias is added stays as it is. A Whisper key is one: what moves all keys alike moves every
    score of a row alike, and so no attention.

    Args:
        model: `source` with `products` quantised: each reads two DequantizeLinear.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    weights, exact_weights = _weights(model), _weights(source)
    before = {node.name: (node.input[0], node.input[1]) for node in _matrix_products(source, products)}
    quantised = _matrix_products(model, products)
    steps = {before[node.name][0]: numpy_helper.to_array(weights[made[node.input[0]].input[1]]) for node in quantised}
    means = _means(source, steps, batches)
    for node in quantised:
        if (place := _bias_of(node, model, weights)) is None:
            continue
        name, weight = before[node.name]
        exact, rounded = means[name]
        integers, scale = (numpy_helper.to_array(weights[name]) for name in made[node.input[1]].input[:2])
        error = exact @ numpy_helper.to_array(exact_weights[weight]) - rounded @ (integers * scale)
        added, index = place
        bias = numpy_helper.to_array(weights[added.input[index]])
        added.input[index] = _add_weight(model, f"{node.name}_corrected_bias", bias + error)
    drop_unused_weights(model.graph)


def costliest(
    model: onnx.ModelProto, source: onnx.ModelProto, products: Sequence[str], batches: Iterable[Waveform], count: int
) -> list[str]:
    """The `count` matrix products that, each rounded alone, change the embedding most; the first output without one.

    An embedding shows what the probabilities of a confident clip hide.

    Args:
        model: `source` with `products` quantised, and no bias corrected: how far a correction holds on another corpus
            is not known.
    """
    waveforms = list(batches)
    exact, changes = _embedding(source, waveforms), {}
    for product in _matrix_products(source, products):
        others = [name for name in products if name != product.name]
        found = _embedding(_restored(model, source, others), waveforms)
        changes[product.name] = float(np.square(found - exact).sum())
    return sorted(changes, key=lambda name: -changes[name])[:count]


def _restored(model: onnx.ModelProto, source: onnx.ModelProto, products: Sequence[str]) -> onnx.ModelProto:
    """`model` with some products as they are in `source`."""
    restored, before = onnx.ModelProto(), {node.name: node.input for node in _matrix_products(source, products)}
    restored.CopyFrom(model)
    for node in _matrix_products(restored, products):
        node.input[:] = before[node.name]
    weights = _weights(model) | _weights(source)
    del restored.graph.initializer[:]
    restored.graph.initializer.extend(weights.values())
    drop_unused_weights(restored.graph)
    return restored


def _embedding(model: onnx.ModelProto, batches: Sequence[Waveform]) -> Array:
    """(N, D) the embedding of all batches; the first output of a graph without one."""
    names = [output.name for output in model.graph.output]
    wanted = EMBEDDING if EMBEDDING in names else names[0]
    running = session(model)
    return np.concatenate([running.run([wanted], {model.graph.input[0].name: batch})[0] for batch in batches])


def _bias_of(
    product: onnx.NodeProto, model: onnx.ModelProto, weights: dict[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto, int] | None:
    """The addition of a constant that alone reads `product`, and which of its inputs the constant is."""
    readers = [node for node in model.graph.node if product.output[0] in node.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    return next(((readers[0], index) for index, name in enumerate(readers[0].input) if name in weights), None)


def _channel_maxima(model: onnx.ModelProto, names: Iterable[str], batches: Iterable[Waveform]) -> dict[str, Array]:
    """Tensor → (K,) largest magnitude of each of its channels."""
    found: dict[str, Array] = {}
    for name, rows in _rows(model, names, batches):
        most = np.abs(rows).max(axis=0)
        found[name] = np.maximum(found.get(name, most), most)
    return found


def _means(
    model: onnx.ModelProto, steps: dict[str, Array], batches: Iterable[Waveform]
) -> dict[str, npt.NDArray[np.float64]]:
    """Tensor → (2, K) mean of each of its channels, as it is and rounded to whole steps, over all rows."""
    sums, counts = dict.fromkeys(steps, np.zeros(())), dict.fromkeys(steps, 0)
    for name, rows in _rows(model, steps, batches):
        rounded = np.clip(np.rint(rows / steps[name]), -128, 127) * steps[name]
        sums[name] = sums[name] + np.stack([rows.sum(axis=0, dtype=np.float64), rounded.sum(axis=0, dtype=np.float64)])
        counts[name] += len(rows)
    return {name: sums[name] / counts[name] for name in steps}


def _rows(model: onnx.ModelProto, names: Iterable[str], batches: Iterable[Waveform]) -> Iterator[tuple[str, Array]]:
    """Each of the tensors `names` of each batch (B, samples), as (rows, K): its last axis is its K channels."""
    wanted, probed = list(dict.fromkeys(names)), onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    running = session(probed)
    for batch in batches:
        for name, values in zip(wanted, running.run(wanted, {model.graph.input[0].name: batch}), strict=True):
            yield name, values.reshape(-1, values.shape[-1])


def _matrix_products(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.name in names and node.op_type == "MatMul"]


def _weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in model.graph.initializer}


def _add_weight(model: onnx.ModelProto, name: str, values: npt.NDArray[np.floating]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return name
