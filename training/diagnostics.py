"""What is measured of what was trained: which parts of a branch have a say, and up to which frequency its clips go.

The first is written to `<run>/<branch>/diagnostics.json` when a branch has been trained, so that a part that never
trained cannot go unseen, and is printed by `ser-train run`. Recordings with less bandwidth are new to the model.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.audio.measure import bandwidth
from ser_batch.bundle.fusion import FUSED
from ser_batch.files import write_json
from training.data.augment import fresh_version
from training.files import read_json
from training.models.pretrained import UNUSED
from training.models.spectrogram import SpectrogramBranch
from training.runs import TrainingRun

FILE = "diagnostics.json"
BATCH = 64
"""Clips of one forward pass."""
DEAD = 0.05
"""Share of the CNN's say below which the Transformer arm counts as dead."""
WORSE = 0.1
"""UA by which a branch alone is clearly better than the fusion."""
UNIFORM = 0.9
"""Share of a uniform attention's entropy above which the arm looks everywhere alike."""

Weights = dict[str, Tensor]
CLIPS = 400
"""Training clips that are measured at most, evenly spread."""
SHARE = 0.05
"""Of the training clips that have less than the bandwidth that a run is trained for."""


def weights(branch: nn.Module) -> Weights:
    """Copies of the parameters that train, on the CPU; not of the mask, which a recipe without masking never meets."""
    trained = ((name, p) for name, p in branch.named_parameters() if p.requires_grad and not name.endswith(UNUSED))
    return {name: p.detach().cpu().clone() for name, p in trained}


def diagnose(branch: nn.Module, start: Weights, features: Tensor, folder: Path, device: torch.device) -> None:
    """Measure a trained branch on the `features` (N, …) of clips and write the figures to `folder`.

    Args:
        start: what `weights` gave before training.
    """
    found: dict[str, Any] = {"moved": moved(start, weights(branch))}
    if isinstance(branch, SpectrogramBranch) and branch.config.layers:
        found["arm"] = arm_figures(branch, features, device)
    write_json(folder / FILE, found)


def moved(start: Weights, end: Weights) -> dict[str, float]:
    """Part of the branch → L2 distance of its parameters from where they began, relative to their norm there.

    A part is a layer of a stack ("encoder.layers.3"), or a module outside of one; of parameters that began as zeros
    the distance is absolute.
    """
    parts: dict[str, list[str]] = {}
    for name in start:
        numbered = re.match(r".*?\.\d+(?=\.)", name)
        parts.setdefault(numbered[0] if numbered else name.rpartition(".")[0] or name, []).append(name)
    found = {}
    for part, names in parts.items():
        distance = _norm([end[name] - start[name] for name in names])
        found[part] = distance / (_norm([start[name] for name in names]) or 1.0)
    return found


def arm_figures(branch: SpectrogramBranch, features: Tensor, device: torch.device) -> dict[str, float]:
    """What the Transformer and cross-attention arm is worth beside the CNN on clips' `features` (N, F, T).

    `logits`: standard deviation over clips of the arm's part of the logits, mean over classes, over the CNN's.
    `attention`: mean entropy of the cross-attention, over that of a uniform one.
    `changed`: share of clips whose label is another one where the arm says of every clip what it says on average.
    """
    branch.eval()
    with torch.no_grad():
        views = [branch.views(part.float().to(device), weights=True) for part in features.split(BATCH)]
        shares = [branch.shares(view) for view in views]
        local, arm = (torch.cat([share[i] for share in shares]).cpu() for i in range(2))
        attention = torch.cat([view.attention for view in views if view.attention is not None]).cpu()
        bias = branch.classifier.bias.cpu()
    entropy = -torch.xlogy(attention, attention).sum(dim=-1).mean() / math.log(attention.shape[-1])
    labels, without = ((local + part + bias).argmax(dim=1) for part in (arm, arm.mean(dim=0)))
    spread, beside = (share.std(dim=0, correction=0).mean() for share in (arm, local))
    return {
        "logits": float(spread / beside.clamp(min=1e-12)),
        "attention": float(entropy),
        "changed": float((labels != without).float().mean()),
    }


def read_all(run: Path) -> dict[str, dict[str, Any]]:
    """Branch → what `diagnose` wrote of it, for each branch of a run's folder that has been trained step by step."""
    return {path.parent.name: read_json(path) for path in sorted(run.glob(f"*/{FILE}"))}


def summary(found: dict[str, Any]) -> str:
    """The figures of one branch in sentences, each with what is healthy, and a warning where one is not."""
    (still, least), (far, most) = (choose(found["moved"].items(), key=lambda item: item[1]) for choose in (min, max))
    text = f"Of its parts {far} changed most in training, by {most:.2g} of its size, and {still} least, by {least:.2g}."
    if not least:
        text += f" WARNING: {still} did not train."
    return f"{text} {_of_the_arm(found['arm'])}" if "arm" in found else text


def of_the_fusion(validation: dict[str, Any], solver: str) -> str | None:
    """A warning where a branch alone tells validation clips clearly better than the fusion; None: it does not.

    Args:
        validation: output (each branch, FUSED) -> figures, as in result.json.
        solver: that fitted the fusion.
    """
    recalls = {name: scores["ua"] for name, scores in validation.items()}
    fused = recalls.pop(FUSED)
    best = max(recalls, key=lambda name: recalls[name])
    if recalls[best] - fused < WORSE:
        return None
    text = f"WARNING: on validation clips the fusion has a UA of {fused:.1%}, {best} alone {recalls[best]:.1%}."
    if solver == "adam":
        text += ' Few clips give Adam too few steps: set [fusion] solver = "lbfgs" or "shrunk".'
    return f"{text} `ser-train fusion RUN` compares the kinds of fusion without training a branch."


def _of_the_arm(arm: dict[str, float]) -> str:
    """What the figures of `arm_figures` say, and a warning where the CNN does the work alone."""
    text = (
        f"Its Transformer arm sways the logits {arm['logits']:.1%} as much as its CNN (healthy: {DEAD:.0%} or more); "
        f"its attention has {arm['attention']:.1%} of the entropy of one that looks everywhere alike (healthy: at most "
        f"{UNIFORM:.0%}); without the arm, {arm['changed']:.1%} of the labels would be others (healthy: above 0)."
    )
    if arm["logits"] < DEAD or not arm["changed"]:
        remedy = "Train longer, or compare [spectrogram] with that of the recipe paper."
        return f"{text} WARNING: the arm is dead, and the branch is its CNN alone. {remedy}"
    if arm["attention"] > UNIFORM:
        return f"{text} WARNING: the attention has not learnt where to look. Train longer."
    return text


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def trained_bandwidth(run: TrainingRun) -> float | None:
    """The bandwidth in Hz (`ser_batch.audio.measure`) that all but SHARE of a run's training clips have.

    Measured on clips as they are augmented, if the recipe draws them anew: a model that was trained through telephones
    knows telephones. None: there is no sound in them.
    """
    config, rows = run.config, run.rows(*run.fitted_parts)
    rate, found = config.clip.sample_rate, []
    for index in np.linspace(0, len(rows) - 1, min(CLIPS, len(rows))).round().astype(int):
        if config.augment.fresh:
            rng = np.random.default_rng((config.seed, rows[index]))
            clip = fresh_version(run.corpus.recording(rows[index], rate), config.clip, config.augment, rng)
        else:
            clip = run.corpus.clip(rows[index], config.clip)
        found.append(bandwidth(clip, rate, rate))
    known = [hertz for hertz in found if hertz is not None]
    return float(np.quantile(known, SHARE)) if known else None
