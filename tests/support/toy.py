"""Toy bundles: small real ONNX graphs from waveform to probabilities, and the same arithmetic in numpy.

The graphs are built with onnx.helper, so no torch is needed; the reference comes from numpy, so a runtime is
never compared with itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ser_batch.bundle import Branch, Bundle, write_bundle
from ser_batch.bundle.fusion import Fusion
from ser_batch.bundle.manifest import Embedding
from ser_batch.bundle.reference import Reference, synthetic_clips
from ser_batch.clips import ClipRule

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
BRANCHES = ("wav2vec2", "spectrogram")
BLOCKS = 8
LOG_FLOOR = 1e-6
LOG_CENTRE = 7.0  # keeps the logits around zero, so that different clips get different labels


def toy_weights(branch: str, classes: int, seed: int = 0) -> np.ndarray:
    """(BLOCKS, classes) float32, different for each branch and seed."""
    rng = np.random.default_rng([seed, *branch.encode()])
    return rng.standard_normal((BLOCKS, classes)).astype(np.float32) / 8


def toy_probabilities(waveform: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The toy graph in numpy, (B, classes) float64: softmax((log(energy + floor) + centre) @ weights)."""
    blocks = waveform.astype(np.float64).reshape(len(waveform), BLOCKS, -1)
    logits = (np.log((blocks**2).mean(axis=2) + LOG_FLOOR) + LOG_CENTRE) @ weights.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def toy_embedding(waveform: np.ndarray) -> np.ndarray:
    """The toy graph's second output in numpy, (B, BLOCKS) float64: max(log(energy + floor) + centre, 0)."""
    blocks = waveform.astype(np.float64).reshape(len(waveform), BLOCKS, -1)
    return np.maximum(np.log((blocks**2).mean(axis=2) + LOG_FLOOR) + LOG_CENTRE, 0)


def toy_graph(
    weights: np.ndarray,
    samples: int = 144_000,
    *,
    labels: tuple[str, ...] | None = None,
    input_name: str = "waveform",
    output_name: str = "probabilities",
    last: str = "Softmax",
    frontend: str | None = "features",
    embedding: bool = False,
) -> onnx.ModelProto:
    """An ONNX model of `toy_probabilities`; `last` replaces its softmax, to make graphs that are wrong.

    `frontend` is the tensor that the metadata, where there are labels, name as the end of the front-end. With
    `embedding` the graph has a second output, `toy_embedding`.
    """
    constants = {
        "shape": np.array([0, BLOCKS, samples // BLOCKS], dtype=np.int64),
        "axis": np.array([2], dtype=np.int64),
        "floor": np.array(LOG_FLOOR, dtype=np.float32),
        "centre": np.array(LOG_CENTRE, dtype=np.float32),
        "weights": weights,
    }
    attributes: dict[str, Any] = {"axis": 1} if last == "Softmax" else {}
    nodes = [
        helper.make_node("Reshape", [input_name, "shape"], ["blocks"]),
        helper.make_node("Mul", ["blocks", "blocks"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axis"], ["energy"], keepdims=0),
        helper.make_node("Add", ["energy", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["level"]),
        helper.make_node("Add", ["level", "centre"], ["features"]),
        helper.make_node("Relu", ["features"], ["embedding"]),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node(last, ["logits"], [output_name], **attributes),
    ]
    if not embedding:
        nodes = [node for node in nodes if node.op_type != "Relu"]
    sizes = {output_name: weights.shape[1]} | ({"embedding": BLOCKS} if embedding else {})
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in sizes.items()]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", samples])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if labels is not None:
        named = {} if frontend is None else {"frontend_output": frontend}
        helper.set_model_props(model, {"labels": json.dumps(labels)} | named)
    onnx.checker.check_model(model)
    return model


def toy_fusion(branches: tuple[str, ...] = BRANCHES, classes: int = len(LABELS), seed: int = 0) -> Fusion:
    """A fusion that leans on each branch's own vote, unevenly, so a swapped order shows."""
    rng = np.random.default_rng([seed, 99])
    vote = np.concatenate([(k + 1) * 2 * np.eye(classes) for k in range(len(branches))], axis=1)
    return Fusion(vote + rng.normal(0, 0.3, vote.shape), rng.normal(0, 0.1, classes), branches)


def make_toy_bundle(
    path: Path,
    labels: tuple[str, ...] = LABELS,
    *,
    clip: ClipRule | None = None,
    branches: tuple[str, ...] = BRANCHES,
    seed: int = 0,
    edit: Callable[[dict[str, Any]], None] | None = None,
    embedding: bool = False,
    **graph: Any,
) -> Bundle:
    """Write a toy bundle to `path`; `clip.samples` must be a multiple of 8.

    Args:
        embedding: whether the first branch has one.
        edit: changes the keyword arguments of `write_bundle` in place, to make a bundle that is wrong.
        graph: goes to `toy_graph` (e.g. `labels` of the ONNX metadata as `metadata_labels=`).
    """
    clip = clip or ClipRule()
    weights = {name: toy_weights(name, len(labels), seed) for name in branches}
    waveform = synthetic_clips(clip)
    rows = {name: toy_probabilities(waveform, weights[name]).astype(np.float32) for name in branches}
    fusion = toy_fusion(branches, len(labels), seed)
    second = Embedding("embedding", BLOCKS) if embedding else None
    known = toy_embedding(waveform).astype(np.float32) if embedding else None
    metadata = graph.pop("metadata_labels", labels)
    with tempfile.TemporaryDirectory() as folder:
        files = {f"{name}.onnx": Path(folder) / f"{name}.onnx" for name in branches}
        for name in branches:
            own = {"embedding": True} if embedding and name == branches[0] else {}
            model = toy_graph(weights[name], clip.samples, labels=metadata, **own, **graph)
            onnx.save(model, files[f"{name}.onnx"])
        arguments: dict[str, Any] = {
            "name": "toy",
            "labels": labels,
            "clip": clip,
            "branches": tuple(
                Branch(name, f"{name}.onnx", embedding=second if name == branches[0] else None) for name in branches
            ),
            "fusion": fusion,
            "reference": Reference(waveform, rows, fusion(rows), known),
            "files": files,
            "provenance": {"made_by": "tests/support/toy.py", "seed": seed},
            "metrics": {},
            "licence": "Apache-2.0",
            "model_card": "# Toy bundle\n\nIts probabilities mean nothing.\n",
        }
        if edit is not None:
            edit(arguments)
        return write_bundle(path, **arguments)
