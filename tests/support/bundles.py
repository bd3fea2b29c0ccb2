"""Bundles changed on purpose, and compiled engines that are none."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.head import Head
from ser_batch.bundle.writing import add_artefacts, write_bundle
from ser_batch.engines.tensorrt.sidecar import SIDECAR_FILE, Sidecar


def reseal(root: Path, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> None:
    """Edit the manifest and write the true sha256 of every file it lists, so that only the edit is wrong."""
    data = json.loads((root / "manifest.json").read_text())
    change(data)
    data["files"] = {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest() if (root / name).is_file() else digest
        for name, digest in data["files"].items()
    }
    (root / "manifest.json").write_text(json.dumps(data))


def sidecar_of(bundle: Bundle, **changes: object) -> Sidecar:
    sidecar = Sidecar(
        runtime="trt-rtx",
        runtime_version="1.7.1.116",
        precision="fp32",
        target="ada",
        compute_capabilities=("8.9",),
        gpu=None,
        cuda="13",
        driver=None,
        profiles=(1, 8),
        bundle_sha256=bundle.sha256,
        onnx_sha256={branch.name: bundle.manifest.files[branch.file] for branch in bundle.manifest.branches},
        created="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(sidecar, **changes)  # type: ignore[arg-type]


def sealed(bundle: Bundle, sidecar: Sidecar) -> Bundle:
    engines = {sidecar.engine(branch.name): b"code" for branch in bundle.manifest.branches}
    return add_artefacts(bundle, {sidecar.folder + SIDECAR_FILE: sidecar.to_json(), **engines})


def with_head(bundle: Bundle, root: Path, labels: tuple[str, ...] = ("bored", "happy", "tense")) -> Bundle:
    """A bundle of the same graphs at `root` whose answer is a head with random weights."""
    rng = np.random.default_rng(5)
    branches = tuple(branch.name for branch in bundle.manifest.branches)
    size = bundle.embedding().size
    weight = rng.normal(size=(len(labels), size + len(branches) * len(bundle.labels)))
    head = Head(weight, rng.normal(size=len(labels)), branches, size)
    reference = bundle.reference()
    return write_bundle(
        root,
        name="head",
        labels=labels,
        branch_labels=bundle.labels,
        clip=bundle.manifest.clip,
        branches=bundle.manifest.branches,
        fusion=head,
        reference=dataclasses.replace(reference, fused=head(reference.branches, reference.embedding)),
        files={branch.file: bundle.path(branch.file) for branch in bundle.manifest.branches},
        provenance={"labels": list(labels)},
        metrics={},
        licence="Apache-2.0",
        model_card="# Toy head\n",
    )
