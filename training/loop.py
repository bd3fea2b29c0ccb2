"""One stage of training: epochs, validation, early stopping, and a state on disk that resumes to the same result.

Every epoch seeds its own random numbers from (seed, epoch), so a stage killed in epoch n and started again is the
stage that was never killed. A stage's folder holds what trains (best.safetensors, state.pt), never what is frozen.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ser_batch.errors import TrainingError
from ser_batch.evaluation.metrics import SMALLEST, accuracy, macro_scores
from ser_batch.files import temporary_pattern, write_atomically
from training.config import Stage
from training.data.examples import TrainingSet
from training.files import read_tensors, write_tensors
from training.runtime import Runtime, fast_products, has_room, upload

EVALUATION_BATCH = 64
"""Clips per forward pass outside training."""
CHECKED = 50
"""Steps after which the losses are checked to be finite."""
BEST, STATE, HISTORY = "best.safetensors", "state.pt", "metrics.jsonl"
"""Files of a stage: the best epoch's weights, what it resumes from, one line of figures per epoch."""


@runtime_checkable
class Layered(Protocol):
    """A branch whose layers learn at rates of their own."""

    def rate(self, name: str, backbone_rate: float, layer_decay: float) -> float:
        """Factor of the learning rate of the parameter `name`."""
        ...


class Objective(Protocol):
    """What a stage makes smaller, and which figures tell how well it does."""

    def loss(self, head: Callable[[Tensor], Tensor], features: Tensor, targets: Tensor, stage: Stage) -> Tensor:
        """Loss () of one batch of features (B, …) and their targets."""
        ...

    def evaluate(self, branch: nn.Module, features: Tensor, targets: Tensor, device: torch.device) -> dict[str, float]:
        """Figures of `branch` on cached features (N, …), among them the stage's `monitor`; "loss" is made smaller."""
        ...


@dataclass
class History:
    """What a stage has done so far; everything but the tensors, and JSON-ready."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    """One row per epoch; `gradient_norm` is the median over its steps of the global norm before clipping."""
    best: float = -math.inf
    """Best monitored figure, signed so that larger is better."""
    best_epoch: int = -1

    @property
    def since_best(self) -> int:
        """Epochs since the best one."""
        return len(self.epochs) - 1 - self.best_epoch


def fit(
    name: str,
    branch: nn.Module,
    stage: Stage,
    train: TrainingSet,
    validation: tuple[Tensor, Tensor] | None,
    folder: Path,
    *,
    seed: int = 0,
    runtime: Runtime | None = None,
    objective: Objective | None = None,
) -> History:
    """Train `branch.head` and leave `branch` with its best weights; `folder`/best.safetensors has what trained.

    The objective is the cross-entropy of classes unless another is given. `validation` is (features, targets);
    without it the whole schedule runs and its last epoch counts as the best. Resumes from `folder` if an earlier run
    was killed there.

    Raises TrainingError when the loss is not finite.
    """
    runtime, objective = runtime or Runtime(), objective or CrossEntropy()
    device = runtime.device
    branch.to(device)
    train = train.on(device)
    if validation and has_room(validation[0], device):
        validation = (validation[0].to(device), validation[1])
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = build_optimizer(branch, stage)
    frozen = frozen_sha256(branch)
    history = _resume(folder, branch, optimizer, frozen)
    head = torch.compile(branch.head) if runtime.compiled else branch.head
    while len(history.epochs) < stage.epochs and history.since_best < stage.patience:
        epoch, started = len(history.epochs), time.perf_counter()
        seed_everything(seed, epoch)
        trained = _train_epoch(name, branch, head, stage, train, optimizer, epoch, device, objective)
        figures = objective.evaluate(branch, *validation, device) if validation else {}
        if not math.isfinite(figures.get("loss", 0.0)):
            raise TrainingError(
                f"the validation loss of stage {name} is not finite in epoch {epoch}",
                got=figures["loss"],
                remedy="Lower the learning rate.",
            )
        row = {"epoch": epoch, **trained, **figures, "seconds": time.perf_counter() - started}
        history.epochs.append(row)
        _keep_if_best(history, stage, figures, branch, folder)
        _save_state(folder, branch, optimizer, history, frozen)
        runtime.report(name, row)
    load_weights(branch, folder / BEST)
    return history


def seed_everything(*seed: int) -> None:
    """Seed torch, and numpy's global state that transformers' masking draws from, with these numbers."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)


def build_optimizer(branch: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser over the parameters that train."""
    if not any(p.requires_grad for p in branch.parameters()):
        raise TrainingError("nothing to train: every parameter is frozen")
    groups = _groups(branch, stage)
    common = {"lr": stage.learning_rate, "weight_decay": stage.weight_decay}
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=stage.momentum, **common)
    # Fused: one pass over the parameters a step, and no wait for the device.
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[stage.optimizer](groups, fused=True, **common)


def _groups(branch: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """The trained parameters, each group with the factor of the learning rate and the weight decay that it shares."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in branch.named_parameters():
        if parameter.requires_grad:
            rate = branch.rate(name, stage.backbone_rate, stage.layer_decay) if isinstance(branch, Layered) else 1.0
            spared = stage.decay == "matrices" and (parameter.ndim < 2 or "positions" in name)
            groups.setdefault((rate, 0.0 if spared else stage.weight_decay), []).append(parameter)
    return [{"params": members, "rate": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def learning_rate(stage: Stage, epoch: int, fraction: float) -> float:
    """The learning rate `fraction` of the way through `epoch`; the paper's schedules step once an epoch."""
    if stage.schedule == "cosine":
        return stage.learning_rate * (1 + math.cos(math.pi * epoch / stage.epochs)) / 2
    if stage.schedule == "step":
        return stage.learning_rate * stage.step_gamma ** (epoch // stage.step_size)
    if stage.schedule == "one_cycle":  # linear warm-up over a tenth, then half a cosine
        done = (epoch + fraction) * stage.cycles / stage.epochs % 1.0
        return stage.learning_rate * (done / 0.1 if done < 0.1 else (1 + math.cos(math.pi * (done - 0.1) / 0.9)) / 2)
    return stage.learning_rate


def _train_epoch(
    name: str,
    branch: nn.Module,
    head: Callable[[Tensor], Tensor],
    stage: Stage,
    train: TrainingSet,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    device: torch.device,
    objective: Objective,
) -> dict[str, float]:
    branch.train()
    losses, norms, steps = [], [], math.ceil(len(train) / stage.batch_size)
    for step, (features, targets) in enumerate(train.batches(epoch, stage.batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, epoch, step / steps) * group["rate"]
        batch = upload(features, device), upload(targets, device)
        loss, norm = training_step(branch, head, batch, stage, optimizer, objective)
        losses.append(loss)
        norms.append(norm)
        if step % CHECKED == CHECKED - 1 or step == steps - 1:  # asked for rarely: it waits for the device
            _check_finite(name, epoch, losses[-CHECKED:], step)
    return {"train_loss": float(torch.stack(losses).mean()), "gradient_norm": float(torch.stack(norms).median())}


def training_step(
    branch: nn.Module,
    head: Callable[[Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
) -> tuple[Tensor, Tensor]:
    """One step on a batch, features and targets, on the branch's device; loss () and gradient norm () before clipping.

    Nothing in it asks the device for a value, so that a GPU is given the next step while it works on this one.
    """
    features, targets = batch
    with fast_products(features.device):
        with autocast(features.device):
            loss = objective.loss(head, features, targets, stage)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(branch.parameters(), stage.clip_norm or math.inf)
        optimizer.step()
    return loss.detach(), norm


def _check_finite(name: str, epoch: int, losses: list[Tensor], step: int) -> None:
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if not all(finite):
        first = finite.index(False)
        raise TrainingError(
            f"the loss of stage {name} is not finite in epoch {epoch}, step {step - len(losses) + 1 + first}",
            got=float(losses[first]),
            remedy="Lower the learning rate.",
        )


class CrossEntropy:
    """The stage's cross-entropy of classes, with its label smoothing and mixup."""

    def loss(self, head: Callable[[Tensor], Tensor], features: Tensor, targets: Tensor, stage: Stage) -> Tensor:
        """Loss () of features (B, …) and class indices (B,), or sets of classes (B, classes); see `cross_entropy`."""
        if not stage.mixup:
            return cross_entropy(head(features), targets, stage.label_smoothing)
        share = float(np.random.beta(stage.mixup, stage.mixup))
        other = torch.randperm(len(targets), device=targets.device)
        logits = head(share * features + (1 - share) * features[other])
        losses = (cross_entropy(logits, wanted, stage.label_smoothing) for wanted in (targets, targets[other]))
        return share * next(losses) + (1 - share) * next(losses)

    def evaluate(self, branch: nn.Module, features: Tensor, targets: Tensor, device: torch.device) -> dict[str, float]:
        """Loss, accuracy and macro-F1."""
        return evaluate(branch, features, targets, device)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy () of logits (B, classes) and class indices (B,), or sets of classes (B, classes).

    Of a set (1: may be, 0: is not, -1: not asked; training.data.corpus) it is -log of the probability that the set
    has among the classes that are asked for; its smoothing goes to those alike. The set of all classes asks for each
    with the same probability, which is what smoothing by 1 does.
    """
    logits = logits.float()
    if targets.ndim == 1:
        return nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    asked = targets >= 0
    scores = logits.masked_fill(~asked, -torch.inf).log_softmax(dim=1)
    wanted = -scores.masked_fill(targets != 1, -torch.inf).logsumexp(dim=1)
    others = -scores.masked_fill(~asked, 0.0).sum(dim=1) / asked.sum(dim=1)
    amount = torch.where((targets == 1).all(dim=1), 1.0, smoothing)
    return ((1 - amount) * wanted + amount * others).mean()


def autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast on CUDA, and on a CPU that multiplies bf16 in hardware; fp32 elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def logits_of(branch: nn.Module, features: Tensor, device: torch.device) -> Tensor:
    """Logits (N, classes) float32 of cached `features` (N, …), in evaluation mode and full precision."""
    branch.eval()
    with torch.no_grad():
        parts = [branch.head(part.float().to(device)) for part in features.split(EVALUATION_BATCH)]
    return torch.cat(parts).cpu()


def evaluate(branch: nn.Module, features: Tensor, targets: Tensor, device: torch.device) -> dict[str, float]:
    """Loss, accuracy and macro-F1 of `branch` on cached features."""
    logits = logits_of(branch, features, device)
    probabilities, truth = of_sets(logits.softmax(dim=1).numpy(), targets.numpy())
    predicted = probabilities.argmax(axis=1)
    return {
        "loss": float(cross_entropy(logits, targets)),
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_scores(truth, predicted, logits.shape[1]).f1,
    }


def of_sets(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, classes) among the classes asked for, a set's in its first class; and truth (N,).

    Class indices are given back as they are. What another label's set has stays apart, so that sets look a little
    better here than in figures by corpus (training.data.corpora).
    """
    if targets.ndim == 1:
        return probabilities, targets
    asked = np.where(targets >= 0, np.maximum(probabilities, SMALLEST), 0.0)
    asked /= asked.sum(axis=1, keepdims=True)
    truth, right = (targets == 1).argmax(axis=1), np.where(targets == 1, asked, 0.0).sum(axis=1)
    merged = np.where(targets == 1, 0.0, asked)
    merged[np.arange(len(merged)), truth] = right
    return merged, truth


def _keep_if_best(history: History, stage: Stage, figures: dict[str, float], branch: nn.Module, folder: Path) -> None:
    if not figures:
        score = float(len(history.epochs))
    else:
        score = -figures["loss"] if stage.monitor == "loss" else figures[stage.monitor]
    if score > history.best:
        history.best, history.best_epoch = score, len(history.epochs) - 1
        write_tensors(folder / BEST, trained_state(branch))


def frozen_state(branch: nn.Module) -> dict[str, Tensor]:
    """The parameters that do not train, by their names in the branch."""
    return {name: parameter.detach() for name, parameter in branch.named_parameters() if not parameter.requires_grad}


def trained_state(branch: nn.Module) -> dict[str, Tensor]:
    """What training changes: the parameters that train, and every buffer."""
    frozen = frozen_state(branch)
    return {name: tensor for name, tensor in branch.state_dict().items() if name not in frozen}


def frozen_sha256(branch: nn.Module) -> str:
    """Of the parameters that do not train."""
    digest = hashlib.sha256()
    for name, tensor in sorted(frozen_state(branch).items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_state(
    folder: Path, branch: nn.Module, optimizer: torch.optim.Optimizer, history: History, frozen: str
) -> None:
    state: dict[str, Any] = {
        "branch": trained_state(branch),
        "frozen_sha256": frozen,
        "optimizer": optimizer.state_dict(),
        "history": json.dumps(asdict(history)),
    }
    write_atomically(folder / STATE, lambda file: torch.save(state, file))
    write_atomically(folder / HISTORY, "".join(json.dumps(row) + "\n" for row in history.epochs))


def _resume(folder: Path, branch: nn.Module, optimizer: torch.optim.Optimizer, frozen: str) -> History:
    """The history in `folder`, with branch and optimiser as they were then; an empty one where nothing is there."""
    for left in folder.glob(temporary_pattern("")):  # by a process that was killed while it wrote
        left.unlink()
    path = folder / STATE
    if not path.is_file():
        return History()
    state = torch.load(path, map_location="cpu", weights_only=True)
    remedy = "Choose another folder, or delete this one to train anew."
    load_tensors(branch, state["branch"], path)
    # Version 0.1.0 kept the frozen parameters in the state instead of their digest.
    if state.get("frozen_sha256", frozen) != frozen:
        raise TrainingError(f"{path} is of a stage whose frozen parameters had other values", remedy=remedy)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise TrainingError(f"{path} is of a stage that trained other parameters: {error}", remedy=remedy) from error
    return History(**json.loads(state["history"]))


def load_weights(branch: nn.Module, path: Path, frozen: Mapping[str, Tensor] | None = None) -> None:
    """Load what a stage trained into `branch`; TrainingError names the first tensor that does not fit.

    Args:
        path: a stage's best.safetensors. Those of version 0.1.0 hold the frozen parameters, too.
        frozen: the parameters that do not train, where the branch does not have them yet: every tensor of the branch
            must then be in the file or among them.
    """
    weights = read_tensors(path)
    if frozen is not None:
        weights = {**frozen, **weights}
        absent = sorted(frozen_state(branch).keys() - weights.keys())
        if absent:
            raise TrainingError(
                f"neither {path} nor the run's backbone.safetensors holds what did not train", got=f"no {absent[0]}"
            )
    load_tensors(branch, weights, path)


def load_tensors(branch: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load into `branch` what was read from `path`; TrainingError names the first tensor that does not fit."""
    own = branch.state_dict()
    needed = own.keys() if weights.keys() & frozen_state(branch).keys() else trained_state(branch).keys()
    for key in sorted(weights.keys() ^ needed):
        where = "the checkpoint" if key in needed else "the branch"
        raise TrainingError(f"{path} is of another architecture", got=f"no tensor {key} in {where}")
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise TrainingError(
                f"{path}: tensor {key}", got=tuple(value.shape), expected=f"shape {tuple(own[key].shape)}"
            )
    branch.load_state_dict(weights, strict=False)
