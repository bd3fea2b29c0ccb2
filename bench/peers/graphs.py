"""The ONNX graphs that peers run: who made each, and how many nodes it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Graph:
    """One branch's graph, as it was exported: a runtime merges nodes when it loads it."""

    maker: str
    """Packages and versions."""
    begins: str
    """What the waveform must be that goes in."""
    nodes: int
    opset: int


def describe(path: Path, packages: Mapping[str, str], begins: str) -> Graph:
    """The graph at `path`, made by `packages` (name → version)."""
    model = onnx.load(path, load_external_data=False)
    (opset,) = (one.version for one in model.opset_import if one.domain == "")
    maker = ", ".join(f"{name} {version}" for name, version in packages.items())
    return Graph(maker, begins, len(model.graph.node), opset)
