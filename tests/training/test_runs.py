"""A run on disk: its checkpoints hold what trains, its encoder is kept once, and it loads, resumes and stays itself."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from ser_batch.errors import TrainingError  # noqa: E402
from support.toy_corpus import CONFIG, write_corpus  # noqa: E402
from training.data.corpus import Corpus  # noqa: E402
from training.loop import frozen_state  # noqa: E402
from training.models.pretrained import load_encoder  # noqa: E402
from training.runs import build_branches, keep_heads, load_run, share_backbone  # noqa: E402
from training.runtime import Runtime  # noqa: E402
from training.stages import train  # noqa: E402

NAME = CONFIG.context.name


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def frozen_run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose encoder is frozen."""
    folder = tmp_path_factory.mktemp("runs") / "frozen"
    train(config(0), corpus, folder)
    return folder


def config(unfrozen: int):
    return replace(CONFIG, context=replace(CONFIG.context, unfrozen_layers=unfrozen, freeze_projection=True))


def checkpoints(folder: Path) -> list[dict[str, torch.Tensor]]:
    state = torch.load(folder / NAME / "state.pt", weights_only=True)["branch"]
    return [load_file(folder / NAME / "best.safetensors"), state]


def test_checkpoints_of_a_frozen_encoder_hold_none_of_it(frozen_run: Path) -> None:
    encoder = frozen_state(build_branches(config(0), 2)[NAME])
    for held in checkpoints(frozen_run):
        assert held and all(name.startswith("classifier.") for name in held)
    kept = load_file(frozen_run / "backbone.safetensors")
    assert kept.keys() == encoder.keys() and all(torch.equal(kept[name], encoder[name]) for name in kept)
    size = sum(tensor.nbytes for tensor in encoder.values())
    assert (frozen_run / NAME / "best.safetensors").stat().st_size < size / 10
    assert (frozen_run / NAME / "state.pt").stat().st_size < size / 4


def test_checkpoints_hold_exactly_the_layers_that_are_unfrozen(corpus: Corpus, tmp_path: Path) -> None:
    train(config(1), corpus, tmp_path / "run", only="context")
    top = {
        name for name in build_branches(config(1), 2)[NAME].state_dict() if name.startswith("encoder.encoder.layers.1.")
    }
    assert top
    for held in checkpoints(tmp_path / "run"):
        assert {name for name in held if not name.startswith("classifier.")} == top


def test_a_run_loads_with_the_encoder_that_it_kept(frozen_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(frozen_run, copy)
    weights = {name: tensor + 1 for name, tensor in load_file(copy / "backbone.safetensors").items()}
    save_file(weights, copy / "backbone.safetensors")
    here, there = (load_run(folder).branches[NAME].state_dict() for folder in (frozen_run, copy))
    assert all(torch.equal(here[name] + 1, there[name]) for name in weights)
    (copy / "backbone.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"neither .*best\.safetensors nor the run's backbone\.safetensors"):
        load_run(copy)


def test_a_run_of_version_0_1_0_loads(frozen_run: Path, tmp_path: Path) -> None:
    """Its checkpoints held the frozen parameters, too, and there was no backbone.safetensors."""
    copy = tmp_path / "run"
    shutil.copytree(frozen_run, copy)
    best = copy / NAME / "best.safetensors"
    save_file({**load_file(best), **load_file(copy / "backbone.safetensors")}, best)
    (copy / "backbone.safetensors").unlink()
    here, there = (load_run(folder).branches[NAME].state_dict() for folder in (frozen_run, copy))
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_a_killed_run_goes_on_with_the_encoder_that_it_began_with(corpus: Corpus, tmp_path: Path) -> None:
    seen: list[str] = []

    def kill(stage: str, row: dict[str, float]) -> None:
        seen.append(stage)
        if len(seen) == 1:
            raise KeyboardInterrupt

    encoder = build_branches(config(0), 2)[NAME].source.model
    for name in ("as", "other"):
        encoder.save_pretrained(tmp_path / name)
    settings = replace(
        config(0), context=replace(config(0).context, backbone=str(tmp_path / "as"), architecture={}, normalise=True)
    )
    whole = train(settings, corpus, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, corpus, tmp_path / "killed", Runtime(progress=kill))
    with torch.no_grad():  # the checkpoint of that name has become another one
        for parameter in encoder.parameters():
            parameter.mul_(1.5)
    encoder.save_pretrained(tmp_path / "as")
    assert train(settings, corpus, tmp_path / "killed") == whole
    branch = build_branches(replace(CONFIG, context=replace(CONFIG.context, unfrozen_layers=1)), 2)[NAME]
    with pytest.raises(TrainingError, match=r"backbone\.safetensors is of another encoder"):
        share_backbone(tmp_path / "killed", branch)


@pytest.fixture(scope="module")
def heads(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on an encoder in half precision, its heads, that encoder elsewhere, and in full precision."""
    folder = tmp_path_factory.mktemp("heads")
    torch.manual_seed(0)
    encoder, other = (load_encoder(CONFIG.context).model for _ in range(2))
    other.save_pretrained(folder / "other")
    encoder.save_pretrained(folder / "full")
    encoder.half().save_pretrained(folder / "half")
    frozen = config(0)
    named = replace(frozen, context=replace(frozen.context, backbone=str(folder / "half"), architecture={}))
    train(named, corpus, folder / "run")
    keep_heads(load_run(folder / "run"), folder / "heads")
    (folder / "half").rename(folder / "moved")
    return folder


def test_the_heads_of_a_run_load_with_the_encoder_that_they_were_trained_on_and_no_other(heads: Path) -> None:
    assert not list((heads / "heads").rglob("backbone.safetensors"))
    whole, found = load_run(heads / "run"), load_run(heads / "heads", str(heads / "moved"))
    for name, branch in whole.branches.items():
        state = found.branches[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in branch.state_dict().items())
    with pytest.raises(TrainingError, match="other is not the encoder that heads was trained on"):
        load_run(heads / "heads", str(heads / "other"))
    with pytest.raises(TrainingError, match=r"cannot be loaded.*Name a folder \(--backbone\) that holds"):
        load_run(heads / "heads")


def test_heads_trained_on_an_encoder_in_half_precision_take_it_in_full_precision_too(heads: Path) -> None:
    whole, found = load_run(heads / "run"), load_run(heads / "heads", str(heads / "full"))
    assert all(
        torch.equal(a, found.branches[NAME].state_dict()[k]) for k, a in whole.branches[NAME].state_dict().items()
    )


def test_a_run_has_another_name_of_its_encoder_everywhere(frozen_run: Path) -> None:
    renamed = load_run(frozen_run).on("public/encoder")
    assert renamed.config.context.backbone == renamed.provenance["config"]["context"]["backbone"] == "public/encoder"
    assert replace(renamed.config, context=config(0).context) == config(0)
