"""Exports that are kept, and taken in place of the same again."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import export.assemble
from export.onnx import Exported, export_branch
from ser_batch.bundle.bundle import Bundle


def keep(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every branch that is exported now left in `folder`, too, as a graph and as the export left it."""
    folder.mkdir(exist_ok=True)

    def kept(branch: Any, path: Path, **options: Any) -> Exported:
        # In training mode on purpose: dropout and batch statistics must not reach the graph.
        made = export_branch(branch.train(), path, **options)
        shutil.copy(path, folder)
        (folder / f"{made.name}.pickle").write_bytes(pickle.dumps(made))
        torch.save((branch.training, branch.state_dict()), folder / f"{made.name}.pt")
        return made

    patch.setattr(export.assemble, "export_branch", kept)


def take(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every branch that is exported now taken from `folder`, by its name."""

    def taken(_: Any, path: Path, *, name: str, **options: Any) -> Exported:
        shutil.copy(folder / path.name, path)
        return dataclasses.replace(kept_export(folder, name), path=path)

    patch.setattr(export.assemble, "export_branch", taken)


def kept_export(folder: Path, name: str) -> Exported:
    """What was told of the branch `name` when it was exported, with its graph in `folder`."""
    made: Exported = pickle.loads((folder / f"{name}.pickle").read_bytes())
    return dataclasses.replace(made, path=folder / made.path.name)


def graphs_of(bundle: Bundle) -> Path:
    """Where the graphs of the fixture `exported_bundle` were kept."""
    return bundle.root.parent / "graphs"
