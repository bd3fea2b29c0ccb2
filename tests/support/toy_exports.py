"""Exports that are kept, and taken in place of the same again."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

import export.assemble
from export.onnx import Exported, export_branch


def keep(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every branch that is exported now left in `folder`, too."""
    folder.mkdir(exist_ok=True)

    def kept(branch: Any, path: Path, **options: Any) -> Exported:
        made = export_branch(branch, path, **options)
        shutil.copy(path, folder)
        (folder / f"{made.name}.pickle").write_bytes(pickle.dumps(made))
        return made

    patch.setattr(export.assemble, "export_branch", kept)


def take(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every branch that is exported now taken from `folder`, by its name."""

    def taken(_: Any, path: Path, *, name: str, **options: Any) -> Exported:
        shutil.copy(folder / path.name, path)
        return dataclasses.replace(pickle.loads((folder / f"{name}.pickle").read_bytes()), path=path)

    patch.setattr(export.assemble, "export_branch", taken)
