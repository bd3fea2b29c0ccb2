"""The models that peers are compared on: branches in torch, the same weights as a bundle, and facts of their graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from export.onnx import export_branch, reference_of
from ser_batch.bundle import Bundle, write_bundle
from ser_batch.bundle.fusion import Fusion
from ser_batch.errors import InputError
from training.config import ContextConfig, RunConfig, SpectrogramConfig, load_config
from training.data.ravdess import LABELS
from training.runs import build_branches, load_run

SMALL = RunConfig(
    recipe="small",
    context=ContextConfig(
        backbone="scratch",
        architecture={
            "conv_dim": [16] * 7,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        hidden=(16, 16),
        unfrozen_layers=1,
    ),
    spectrogram=SpectrogramConfig(channels=(4, 8, 8, 8), layers=1, feed_forward=32),
)
"""Too small for timings: it shows that everything runs."""
BASE = RunConfig(recipe="base", context=ContextConfig(backbone="scratch"))
"""The paper's: wav2vec 2.0 base and the spectrogram branch of section III-D."""
SIZES = ("small", "compact", "base")


@dataclass(frozen=True)
class Model:
    """The same weights, in torch and as a bundle."""

    branches: dict[str, nn.Module]
    """Name → module in evaluation mode, waveform to logits."""
    bundle: Bundle


@dataclass(frozen=True)
class Graph:
    """One branch's ONNX graph as it was exported; a runtime merges nodes when it loads it."""

    maker: str
    """Packages and versions."""
    begins: str
    """The waveform that it takes: rate and range."""
    nodes: int
    opset: int


def describe_graph(path: Path, packages: Mapping[str, str], begins: str) -> Graph:
    """The graph at `path`, exported by `packages` (name → version)."""
    model = onnx.load(path, load_external_data=False)
    (opset,) = (one.version for one in model.opset_import if one.domain == "")
    maker = ", ".join(f"{name} {version}" for name, version in packages.items())
    return Graph(maker, begins, len(model.graph.node), opset)


def context_model(folder: Path, size: str, seed: int = 0, run_folder: Path | None = None) -> Model:
    """A context branch alone: a training run's, if one is given, or else a random one."""
    return trained_context(folder, run_folder) if run_folder else random_model(folder, size, seed, only_context=True)


def random_model(folder: Path, size: str, seed: int = 0, *, only_context: bool = False) -> Model:
    """Random weights of `size` from `seed`, exported to a bundle at `folder`; trained ones would be as fast.

    Args:
        size: "small", "compact" (the embedded default's architecture) or "base".
        only_context: leave out the spectrogram branch.

    Raises:
        InputError: no such size.
    """
    config, branches = random_branches(size, seed, only_context)
    fusion = _votes(branches, LABELS)
    provenance = {"made_by": "bench.peers.models", "size": size, "seed": seed, "weights": "random"}
    return _exported(folder, f"random-{size}", config, branches, tuple(LABELS), fusion, provenance)


def random_branches(size: str, seed: int = 0, only_context: bool = False) -> tuple[RunConfig, dict[str, nn.Module]]:
    """The torch side of `random_model`, and its configuration."""
    if size not in SIZES:
        raise InputError("there is no model of that size", got=repr(size), expected=", ".join(SIZES))
    config = load_config("compact") if size == "compact" else {"small": SMALL, "base": BASE}[size]
    # transformers and optimum show the encoder a recording at its own level, and so must what they are compared with.
    config = replace(config, seed=seed, context=replace(config.context, level="full scale"))
    branches = {name: branch.eval() for name, branch in build_branches(config, len(LABELS)).items()}
    return config, {config.context.name: branches[config.context.name]} if only_context else branches


def trained_context(folder: Path, run_folder: Path) -> Model:
    """The context branch of a finished training run, exported to a bundle at `folder`."""
    run = load_run(run_folder)
    branches = {run.config.context.name: run.branches[run.config.context.name]}
    provenance = {"made_by": "bench.peers.models", "run": run_folder.name}
    return _exported(
        folder, run.config.recipe, run.config, branches, run.labels, _votes(branches, run.labels), provenance
    )


def _votes(branches: Iterable[str], labels: Sequence[str]) -> Fusion:
    """A fusion that sums the branches' probabilities; its cost does not depend on its values."""
    names = tuple(branches)
    return Fusion(np.tile(np.eye(len(labels)), len(names)), np.zeros(len(labels)), names)


def _exported(
    folder: Path,
    name: str,
    config: RunConfig,
    branches: dict[str, nn.Module],
    labels: tuple[str, ...],
    fusion: Fusion,
    provenance: dict[str, object],
) -> Model:
    with tempfile.TemporaryDirectory() as work:
        exports = [
            export_branch(branch, Path(work) / f"{branch_name}.onnx", name=branch_name, labels=labels, clip=config.clip)
            for branch_name, branch in branches.items()
        ]
        bundle = write_bundle(
            folder,
            name=name,
            labels=labels,
            clip=config.clip,
            branches=tuple(export.branch for export in exports),
            fusion=fusion,
            reference=reference_of(exports, fusion, config.clip),
            files={export.path.name: export.path for export in exports},
            provenance=provenance,
            metrics={},
            licence="none: for timing only",
            model_card="# A model for timing\n\nIts probabilities mean nothing unless it was trained.\n",
        )
    return Model(branches, bundle)
