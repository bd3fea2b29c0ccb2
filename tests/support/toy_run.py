"""Toy runs: finished run folders of tiny untrained branches, with figures measured on made-up predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.peers.models import SMALL
from ser_batch.bundle.fusion import save_fusion
from ser_batch.clips import ClipRule
from ser_batch.evaluation.metrics import evaluate
from support.toy import toy_fusion
from training.config import RunConfig, to_dict
from training.data.ravdess import LABELS
from training.files import write_tensors
from training.loop import BEST, trained_state
from training.runs import build_branches, environment, share_backbone

CLIP = ClipRule(samples=24_000)
CONTEXT, SPECTROGRAM = SMALL.context, SMALL.spectrogram
CONFIG = replace(SMALL, recipe="toy", clip=CLIP)


def make_toy_run(folder: Path, config: RunConfig = CONFIG, corpus: str = "ravdess") -> Path:
    """Write a finished run to `folder`, as `training.runs.load_run` reads it."""
    torch.manual_seed(config.seed)
    folder.mkdir(parents=True)
    branches = build_branches(config, len(LABELS))
    for name, branch in branches.items():
        (folder / name).mkdir()
        write_tensors(folder / name / BEST, trained_state(branch))
    share_backbone(folder, branches[config.context.name])
    fusion = toy_fusion(tuple(branches))
    save_fusion(fusion, folder / "fusion.npz")
    split = {"name": "paper-seed0", "corpus": corpus, "labels": list(LABELS)}
    files = {"train": ["a.wav"] * 3, "validation": ["b.wav"] * 2, "test": ["c.wav"] * 16}
    rng = np.random.default_rng(config.seed)
    truth = np.arange(16) % len(LABELS)
    found = {name: rng.dirichlet(np.full(len(LABELS), 0.5), 16).astype(np.float32) for name in branches}
    found["fused"] = fusion(found)
    result = {"test": {name: evaluate(truth, rows, LABELS).to_dict() for name, rows in found.items()}}
    written = {
        "config": to_dict(config),
        "split": {**split, **files},
        "environment": environment(),
        "result": result,
    }
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
