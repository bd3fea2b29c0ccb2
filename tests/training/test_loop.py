"""The training loop on a toy branch: it learns, it stops, and a killed stage resumes to the very same result."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ser_batch.errors import TrainingError  # noqa: E402
from support.no_values import NoValues  # noqa: E402
from training.config import Stage  # noqa: E402
from training.data.examples import CachedSet  # noqa: E402
from training.loop import (  # noqa: E402
    CrossEntropy,
    build_optimizer,
    cross_entropy,
    evaluate,
    fit,
    frozen_state,
    learning_rate,
    load_weights,
    seed_everything,
    trained_state,
    training_step,
)
from training.runtime import Runtime  # noqa: E402

CLASSES, WIDTH = 3, 6
STAGE = Stage("adamw", 0.02, epochs=8, patience=8, monitor="accuracy", schedule="cosine", batch_size=16)


class Toy(torch.nn.Module):
    """Batch norm, dropout and a frozen layer, as the real branches have."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(width, width).requires_grad_(False)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(width, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2),
            torch.nn.Linear(16, CLASSES),
        )  # fmt: skip

    def head(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(self.frozen(features))


def toy(width: int = WIDTH) -> Toy:
    seed_everything(0)
    return Toy(width)


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around one centre a class."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(CLASSES, size=count)
    features = 1.5 * np.eye(WIDTH)[targets] + rng.normal(0, 0.7, (count, WIDTH))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(targets)


TRAIN, VALIDATION = CachedSet(*clusters(120, 1), seed=0), clusters(60, 2)


def without_time(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_equal_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key


def test_it_learns_what_can_be_learnt(tmp_path: Path) -> None:
    branch = toy()
    before = evaluate(branch, *VALIDATION, torch.device("cpu"))
    frozen = branch.frozen.weight.clone()
    history = fit("toy", branch, STAGE, TRAIN, VALIDATION, tmp_path)
    after = evaluate(branch, *VALIDATION, torch.device("cpu"))
    assert after["accuracy"] > 0.8 > before["accuracy"] + 0.2
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]
    assert torch.equal(branch.frozen.weight, frozen)


def test_shuffled_labels_cannot_be_learnt(tmp_path: Path) -> None:
    """Guards the guard: an evaluation that peeked at the targets would pass the test above."""
    features, targets = clusters(120, 1)
    random = torch.from_numpy(np.random.default_rng(5).permutation(targets.numpy()))
    branch = toy()
    fit("toy", branch, STAGE, CachedSet(features, random, seed=0), VALIDATION, tmp_path)
    assert evaluate(branch, *VALIDATION, torch.device("cpu"))["accuracy"] < 0.65


@pytest.mark.parametrize("monitor", ["accuracy", "loss", "macro_f1"])
def test_the_best_epoch_is_kept(monitor: str, tmp_path: Path) -> None:
    stage = Stage("sgd", 0.3, epochs=10, patience=10, monitor=monitor, batch_size=16)
    branch = toy()
    history = fit("toy", branch, stage, TRAIN, VALIDATION, tmp_path)
    figures = [row[monitor] for row in history.epochs]
    best = min(figures) if monitor == "loss" else max(figures)
    assert figures.index(best) == history.best_epoch
    assert evaluate(branch, *VALIDATION, torch.device("cpu"))[monitor] == pytest.approx(best, abs=1e-6)
    restored = toy()
    load_weights(restored, tmp_path / "best.safetensors")
    assert_equal_weights(branch, restored)


def test_without_validation_the_whole_schedule_runs_and_its_end_is_kept(tmp_path: Path) -> None:
    stage = replace(STAGE, epochs=5, patience=1, schedule="constant")
    branch, interrupted = toy(), toy()
    history = fit("toy", branch, stage, TRAIN, None, tmp_path / "once")
    assert len(history.epochs) == 5 and history.best_epoch == 4 and "accuracy" not in history.epochs[0]
    fit("toy", interrupted, replace(stage, epochs=3), TRAIN, None, tmp_path / "twice")
    (tmp_path / "twice" / "best.safetensors").unlink()  # the whole schedule's end replaces what was kept before it
    fit("toy", interrupted, stage, TRAIN, None, tmp_path / "twice")
    assert_equal_weights(branch, interrupted)


@pytest.fixture(
    scope="module",
    params=[
        STAGE,
        Stage("sgd", 0.05, epochs=8, patience=8, monitor="loss", schedule="step", step_size=3, batch_size=16),
        Stage("adam", 0.01, epochs=8, patience=8, monitor="macro_f1", schedule="one_cycle", mixup=0.3, batch_size=16),
    ],
    ids=["adamw", "sgd", "adam-mixup"],
)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stage, torch.nn.Module, Path]:
    """A stage, what it trains, and its folder; read only."""
    whole, folder = toy(), tmp_path_factory.mktemp("whole")
    fit("toy", whole, request.param, TRAIN, VALIDATION, folder, seed=3)
    return request.param, whole, folder


@pytest.mark.parametrize("killed_after", [0, 3, 7])
def test_a_killed_stage_resumes_to_the_same_result(
    undisturbed: tuple[Stage, torch.nn.Module, Path], killed_after: int, tmp_path: Path
) -> None:
    stage, whole, folder = undisturbed

    def kill(_: str, row: dict[str, float]) -> None:
        if row["epoch"] == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit("toy", toy(), stage, TRAIN, VALIDATION, tmp_path, seed=3, runtime=Runtime(progress=kill))
    torch.rand(17)  # the new process has another state of its generators
    np.random.rand(5)
    resumed = toy()
    history = fit("toy", resumed, stage, TRAIN, VALIDATION, tmp_path, seed=3)
    assert [row["epoch"] for row in history.epochs] == list(range(8))
    assert without_time(tmp_path) == without_time(folder)
    assert_equal_weights(resumed, whole)


def test_a_kill_between_best_weights_and_state_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = toy()
    fit("toy", whole, STAGE, TRAIN, VALIDATION, tmp_path / "whole")
    from training import loop

    save, calls = loop._save_state, []

    def killed(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(loop, "_save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        fit("toy", toy(), STAGE, TRAIN, VALIDATION, tmp_path / "killed")
    resumed = toy()
    fit("toy", resumed, STAGE, TRAIN, VALIDATION, tmp_path / "killed")
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")
    assert_equal_weights(resumed, whole)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first, again, seen = toy(), toy(), []
    fit("toy", first, STAGE, TRAIN, VALIDATION, tmp_path)
    runtime = Runtime(progress=lambda *row: seen.append(row))
    fit("toy", again, STAGE, TRAIN, VALIDATION, tmp_path, runtime=runtime)
    assert not seen
    assert_equal_weights(first, again)


def test_another_seed_is_another_result(tmp_path: Path) -> None:
    first, other = toy(), toy()
    fit("toy", first, STAGE, TRAIN, VALIDATION, tmp_path / "0", seed=0)
    fit("toy", other, STAGE, TRAIN, VALIDATION, tmp_path / "1", seed=1)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_it_stops_after_patience_epochs_without_a_better_one(tmp_path: Path) -> None:
    stage = Stage("sgd", 1e-12, epochs=50, patience=3, monitor="accuracy", batch_size=16)
    branch = toy()
    branch.layers[1].momentum = 0.0  # nothing moves: the first epoch stays the best
    history = fit("toy", branch, stage, TRAIN, VALIDATION, tmp_path)
    assert (len(history.epochs), history.best_epoch) == (4, 0)


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    features, targets = clusters(32, 1)
    features[5] = math.nan
    with pytest.raises(TrainingError, match=r"stage toy is not finite in epoch 0.*learning rate"):
        fit("toy", toy(), STAGE, CachedSet(features, targets, seed=0), VALIDATION, tmp_path)
    assert not (tmp_path / "best.safetensors").exists()


def test_a_validation_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    stage = Stage("sgd", 0.01, epochs=2, patience=2, monitor="loss", batch_size=16)
    features, targets = clusters(8, 2)
    with pytest.raises(TrainingError, match="validation loss of stage toy"):
        fit("toy", toy(), stage, TRAIN, (features * math.inf, targets), tmp_path)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    def moved(clip_norm: float) -> float:
        stage = Stage("sgd", 1.0, 1, 1, "loss", momentum=0.0, batch_size=120, clip_norm=clip_norm)
        branch = toy()
        fit("toy", branch, stage, TRAIN, VALIDATION, tmp_path / str(clip_norm))
        pairs = zip(branch.layers.parameters(), toy().layers.parameters(), strict=True)
        return float(sum((a - b).detach().square().sum() for a, b in pairs) ** 0.5)

    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved(0) > 0.1


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage("adamw", 2.0, 4, 1, "loss", "cosine"), [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]),
        (Stage("sgd", 2.0, 4, 1, "loss", "step", step_size=2, step_gamma=0.7), [2.0, 2.0, 1.4, 1.4]),
        (Stage("adam", 2.0, 4, 1, "loss"), [2.0] * 4),
    ],
    ids=["cosine", "step", "constant"],
)
def test_the_papers_schedules(stage: Stage, expected: list[float]) -> None:
    assert [learning_rate(stage, epoch, 0.5) for epoch in range(4)] == pytest.approx(expected)


def test_schedules_are_torchs_own() -> None:
    torch_sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(torch_sgd, 10, 0.7)
    stage = Stage("sgd", 0.01, 500, 25, "loss", "step")
    for epoch in range(35):
        assert learning_rate(stage, epoch, 0) == pytest.approx(schedule.get_last_lr()[0])
        torch_sgd.step()
        schedule.step()


def test_one_cycle_rises_then_falls_within_epochs() -> None:
    stage = Stage("adamw", 1.0, 10, 10, "loss", "one_cycle")
    rates = [learning_rate(stage, epoch, step / 4) for epoch in range(10) for step in range(4)]
    assert rates[0] == 0 and max(rates) == rates[4] == 1 and rates[-1] < 0.01
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize(("kind", "optimizer"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_optimisers_hold_what_trains(kind: str, optimizer: str) -> None:
    made = build_optimizer(toy(), Stage(kind, 0.1, 1, 1, "loss", weight_decay=0.5))
    assert type(made).__name__ == optimizer
    assert sum(len(group["params"]) for group in made.param_groups) == 6
    assert [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]
    with pytest.raises(TrainingError, match="frozen"):
        build_optimizer(toy().requires_grad_(False), STAGE)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    weights = trained_state(toy())
    save_file({k: v for k, v in weights.items() if k != "layers.4.bias"}, path)
    with pytest.raises(TrainingError, match=r"no tensor layers\.4\.bias in the checkpoint"):
        load_weights(toy(), path)
    save_file(weights | {"extra": torch.zeros(1)}, path)
    with pytest.raises(TrainingError, match="no tensor extra in the branch"):
        load_weights(toy(), path)
    save_file(weights | {"layers.4.bias": torch.zeros(5)}, path)
    with pytest.raises(TrainingError, match=r"layers\.4\.bias; got \(5,\); expected shape \(3,\)"):
        load_weights(toy(), path)


def test_the_state_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    fit("toy", toy(), STAGE, TRAIN, VALIDATION, tmp_path)
    with pytest.raises(TrainingError, match=r"state\.pt.*layers\.0\.weight"):
        fit("toy", toy(WIDTH + 1), STAGE, TRAIN, VALIDATION, tmp_path)


def test_checkpoints_hold_what_trains_and_no_frozen_tensor(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    branch = toy()
    fit("toy", branch, STAGE, TRAIN, VALIDATION, tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    kept = {name for name in branch.state_dict() if not name.startswith("frozen.")}
    assert "layers.1.running_mean" in kept and set(load_file(tmp_path / "best.safetensors")) == kept
    assert set(state["branch"]) == kept


def test_a_stage_with_other_frozen_parameters_is_refused(tmp_path: Path) -> None:
    fit("toy", toy(), STAGE, TRAIN, VALIDATION, tmp_path)
    other = toy()
    with torch.no_grad():
        other.frozen.weight += 1
    with pytest.raises(TrainingError, match=r"state\.pt is of a stage whose frozen parameters had other values"):
        fit("toy", other, STAGE, TRAIN, VALIDATION, tmp_path)


def as_version_0_1_0(folder: Path, branch: torch.nn.Module) -> None:
    """Write a stage's checkpoints as version 0.1.0 did: with the frozen parameters, and without their digest."""
    from safetensors.torch import load_file, save_file

    frozen = frozen_state(branch)
    state = torch.load(folder / "state.pt", weights_only=True)
    del state["frozen_sha256"]
    torch.save({**state, "branch": {**state["branch"], **frozen}}, folder / "state.pt")
    save_file({**load_file(folder / "best.safetensors"), **frozen}, folder / "best.safetensors")


def test_checkpoints_of_version_0_1_0_resume_to_the_same_result(tmp_path: Path) -> None:
    whole, resumed = toy(), toy()
    fit("toy", whole, STAGE, TRAIN, VALIDATION, tmp_path / "whole")

    def kill(_: str, row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit("toy", toy(), STAGE, TRAIN, VALIDATION, tmp_path / "old", runtime=Runtime(progress=kill))
    as_version_0_1_0(tmp_path / "old", toy())
    fit("toy", resumed, STAGE, TRAIN, VALIDATION, tmp_path / "old")
    assert without_time(tmp_path / "old") == without_time(tmp_path / "whole")
    assert_equal_weights(resumed, whole)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.pt.0123abcd.tmp").write_bytes(b"half")
    fit("toy", toy(), STAGE, TRAIN, VALIDATION, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "metrics.jsonl", "state.pt"]


@pytest.mark.parametrize("clip_norm", [1e-3, 0.0])
def test_the_history_has_the_gradients_norm_before_clipping(clip_norm: float, tmp_path: Path) -> None:
    stage = replace(STAGE, epochs=1, clip_norm=clip_norm, batch_size=120, optimizer="sgd", learning_rate=1e-6)
    torch.manual_seed(0)
    (row,) = fit("toy", toy(), stage, TRAIN, VALIDATION, tmp_path).epochs
    branch, (features, targets) = toy(), next(TRAIN.batches(0, 120))
    seed_everything(0, 0)
    torch.nn.functional.cross_entropy(branch.train().head(features), targets).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in branch.parameters() if p.grad is not None))
    assert row["gradient_norm"] == pytest.approx(norm, rel=0.05) and norm > 0.1


def test_matrices_alone_decay_where_the_stage_says_so() -> None:
    branch = toy()
    branch.positions = torch.nn.Parameter(torch.ones(3, 4))
    groups = build_optimizer(branch, replace(STAGE, weight_decay=0.1)).param_groups
    decaying = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in branch.named_parameters():
        if parameter.requires_grad:
            matrix = name in ("layers.0.weight", "layers.4.weight")
            assert decaying[id(parameter)] == (0.1 if matrix else 0.0), name
    (group,) = build_optimizer(branch, replace(STAGE, weight_decay=0.1, decay="all")).param_groups
    assert group["weight_decay"] == 0.1


def test_a_set_of_classes_is_right_as_a_whole_and_what_is_not_asked_for_has_no_gradient() -> None:
    logits = torch.tensor([[1.0, 0.5, -1.0, 2.0]], requires_grad=True)
    sets = torch.tensor([[1, 1, 0, -1]], dtype=torch.int8)  # the first or the second, not the third; the fourth unasked
    loss = cross_entropy(logits, sets)
    asked = logits.detach()[0, :3].softmax(dim=0)
    assert float(loss.detach()) == pytest.approx(-math.log(float(asked[:2].sum())), abs=1e-6)
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 3] == 0 and logits.grad[0, 2] > 0 > logits.grad[0, 0]


def test_the_set_of_all_classes_asks_for_each_alike() -> None:
    torch.manual_seed(0)
    logits, every = torch.randn(3, 4), torch.ones(3, 4, dtype=torch.int8)
    assert float(cross_entropy(logits, every)) == pytest.approx(float(-logits.log_softmax(dim=1).mean()), abs=1e-6)
    assert float(cross_entropy(torch.zeros(3, 4), every)) == pytest.approx(math.log(4), abs=1e-6)


def test_sets_of_one_class_are_the_cross_entropy_of_class_indices() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    sets = torch.nn.functional.one_hot(classes, 5).to(torch.int8)
    for smoothing in (0.0, 0.2):
        expected = torch.nn.functional.cross_entropy(logits, classes, label_smoothing=smoothing)
        assert float(cross_entropy(logits, sets, smoothing)) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("stage", [STAGE, replace(STAGE, optimizer="sgd"), replace(STAGE, optimizer="adam", mixup=0.2)])
@pytest.mark.parametrize("sets", [False, True])
def test_no_step_waits_for_the_device(stage: Stage, sets: bool) -> None:
    branch, (features, targets) = toy(), next(TRAIN.batches(0, 16))
    optimizer = build_optimizer(branch.train(), stage)
    if sets:
        targets = torch.nn.functional.one_hot(targets, CLASSES).to(torch.int8)
    steps = (branch, branch.head, (features, targets), stage, optimizer, CrossEntropy())
    training_step(*steps)  # the optimiser makes its state
    with NoValues():
        loss, norm = training_step(*steps)
    assert loss.shape == norm.shape == () and float(norm) > 0
    with pytest.raises(AssertionError), NoValues():
        float(loss)
