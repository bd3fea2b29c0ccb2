"""What every runtime must offer, and the checks that are the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.bundle.bundle import Branch, Bundle
from ser_batch.clips import Waveform
from ser_batch.errors import EngineError

LABELS_KEY = "labels"
"""Key of the ONNX metadata_props under which an exported graph carries its labels, as a JSON list."""
FRONTEND_KEY = "frontend_output"
"""Key under which it names the tensor where its front-end ends: all before it stays in fp32 at every precision."""


class EngineIdentity(Protocol):
    """What of an engine is written into the rows that it makes."""

    @property
    def name(self) -> str:
        """The runtime, as `--backend` names it: "onnxruntime"."""

    @property
    def precision(self) -> str:
        """The arithmetic: "fp32"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu"."""


class Engine(EngineIdentity, Protocol):
    """All branches of one bundle, loaded in one runtime."""

    def run(self, waveform: Waveform) -> dict[str, npt.NDArray[np.float32]]:
        """Branch name -> (B, C) probabilities for (B, samples) float32 in [-1, 1], B ≥ 1.

        A clip's probabilities do not depend on the others in its batch.

        Raises:
            EngineError: the runtime failed.
        """

    def close(self) -> None:
        """Release the runtime's memory; `run` may not be called again."""


def check_tensor(
    branch: Branch,
    kind: str,
    tensors: Sequence[tuple[str, Sequence[Any], str]],
    *,
    columns: int,
    bundle: Bundle,
) -> None:
    """Check that a graph has one input (or output) of the name, shape and type that its bundle states.

    Args:
        kind: "input" or "output".
        tensors: name, shape and type ("float32") of each the graph has; a free dimension is any non-integer.
        columns: the second dimension: samples of a clip, or number of labels.

    Raises:
        EngineError: the graph has other tensors.
    """
    name = branch.input if kind == "input" else branch.output
    fits = (
        len(tensors) == 1
        and tensors[0][0] == name
        and len(tensors[0][1]) == 2
        and not isinstance(tensors[0][1][0], int)
        and tensors[0][1][1] == columns
        and tensors[0][2] == "float32"
    )
    if not fits:
        raise EngineError(
            f"{bundle.path(branch.file)} does not have the {kind} that its bundle states",
            got=", ".join(f"{found} {list(shape)} {dtype}" for found, shape, dtype in tensors) or "none",
            expected=f"{name} ['batch', {columns}] float32",
        )


def check_labels(branch: Branch, raw: str | None, bundle: Bundle) -> None:
    """Check the labels an ONNX graph carries against the manifest's, order included; None: it has none.

    Raises:
        EngineError: they differ, so every probability would be read under a wrong label.
    """
    if raw is None:
        return
    try:
        labels = json.loads(raw)
    except ValueError:
        labels = raw
    if labels != list(bundle.labels):
        permuted = isinstance(labels, list) and sorted(map(str, labels)) == sorted(bundle.labels)
        raise EngineError(
            f"{bundle.path(branch.file)} carries {'permuted' if permuted else 'other'} labels",
            got=labels,
            expected=f"{list(bundle.labels)} as in the manifest",
            remedy="Export the bundle again; do not edit its labels by hand.",
        )
