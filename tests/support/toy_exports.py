"""Exports that are remembered: tracing a branch takes torch longer than a hundred tests."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from export.onnx import Exported, export_branch
from ser_batch.bundle.reference import synthetic_clips


class Exports:
    """`export_branch`, which takes a branch that was exported before from `folder`, whichever process did so.

    What makes a branch the same is its name, its labels, its clips, and what it gives for the reference clips.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, branch: torch.nn.Module, path: Path, **options: Any) -> Exported:
        folder = self._folder / _identity(branch, **options)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "export.pickle").exists():
                # In training mode on purpose: dropout and batch statistics must not reach the graph.
                made = export_branch(branch.train(), folder / "graph.onnx", **options)
                (folder / "export.pickle").write_bytes(pickle.dumps(made))
        shutil.copy(folder / "graph.onnx", path)
        found: Exported = pickle.loads((folder / "export.pickle").read_bytes())
        return dataclasses.replace(found, path=path)


def _identity(branch: torch.nn.Module, **options: Any) -> str:
    branch.eval()
    with torch.inference_mode():
        rows = branch(torch.from_numpy(synthetic_clips(options["clip"])))
    return hashlib.sha256(repr(sorted(options.items())).encode() + rows.numpy().tobytes()).hexdigest()
