"""A student learns its teacher's frames, goes on where it was killed, and leaves a backbone that a recipe can name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ser_batch.errors import TrainingError  # noqa: E402
from support import toy_corpus  # noqa: E402
from training.config import AugmentConfig, ContextConfig, Stage  # noqa: E402
from training.data.corpora import Corpora, load_corpora  # noqa: E402
from training.distillation import (  # noqa: E402
    DistillationConfig,
    Imitation,
    clip_statistics,
    distances,
    distill,
    load_distillation,
)
from training.models.context import ContextBranch  # noqa: E402
from training.runtime import Runtime  # noqa: E402

SMALL = {
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
STAGE = Stage("adamw", 3e-3, epochs=4, patience=4, monitor="loss", batch_size=8)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    folder = tmp_path_factory.mktemp("corpora")
    toy_corpus.write_corpus(folder / "speech")
    entry = 'name = "toy"\ndata = "speech"\nlabelled = false\nlicence = "CC0"\nrole = "train"\n'
    (folder / "corpora.toml").write_text(f'classes = ["neutral", "calm"]\n[[corpus]]\n{entry}')
    return load_corpora(folder / "corpora.toml")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DistillationConfig:
    """A teacher of random weights, whose frames still say what is in the clip."""
    torch.manual_seed(0)
    teacher = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
            decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, bos_token_id=0,
            eos_token_id=0, decoder_start_token_id=0,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("teacher")
    teacher.save_pretrained(folder)
    augment = AugmentConfig(fresh=True, snrs=(5.0, 30.0), random_snr=True, noises=("coloured", "babble"))
    return DistillationConfig(
        STAGE, SMALL, teacher=str(folder), teacher_layers=(1, 2), clips_per_epoch=40, clip=toy_corpus.CONFIG.clip,
        augment=augment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def distilled(
    corpora: Corpora, config: DistillationConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """What a finished distillation gives, and its folder; read only."""
    folder = tmp_path_factory.mktemp("distilled") / "out"
    return distill(config, corpora, folder), folder


def test_the_student_comes_closer_and_is_a_backbone(distilled: tuple[dict[str, Any], Path]) -> None:
    result, folder = distilled
    history = [json.loads(line) for line in (folder / "student/metrics.jsonl").read_text().splitlines()]
    assert len(history) == 4 and history[-1]["cosine"] > history[0]["cosine"] + 0.1
    assert result["loss"] == pytest.approx(min(row["loss"] for row in history), abs=1e-4)
    branch = ContextBranch(ContextConfig(backbone=str(folder / "encoder"), unfrozen_layers=0), 2)
    assert branch.source.normalise and branch.width == 16 and branch.depth == 2


def test_a_distillation_goes_on_from_the_student_of_another(
    corpora: Corpora, config: DistillationConfig, distilled: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    first, folder = distilled
    short = replace(config, stage=replace(STAGE, epochs=1, learning_rate=1e-5))
    more = distill(replace(short, start=str(folder)), corpora, tmp_path / "more")
    assert more["cosine"] == pytest.approx(first["cosine"], abs=0.02)
    assert distill(short, corpora, tmp_path / "anew")["cosine"] < first["cosine"] - 0.1


def test_a_clip_is_told_by_the_mean_and_the_deviation_of_its_frames() -> None:
    frames = torch.randn(3, 2, 50, 8, generator=torch.Generator().manual_seed(0))
    statistics = clip_statistics(frames)
    assert statistics.shape == (3, 4, 8)
    objective = Imitation(1.0, statistics.mean(dim=0), statistics.std(dim=0))

    def loss(found: torch.Tensor) -> tuple[float, float]:
        of_frames = float(distances(found, frames).mean())
        return of_frames, float(objective.loss(lambda x: x, found, frames, STAGE)) - of_frames

    backwards, louder = loss(frames.flip(2)), loss(1.5 * frames)
    assert backwards[0] > 1 and backwards[1] == pytest.approx(0, abs=1e-5)
    assert louder[0] < 0.5 and louder[1] > 0.5


def test_a_killed_distillation_goes_on_to_the_same_student(
    corpora: Corpora, config: DistillationConfig, distilled: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    whole, folder = distilled

    def kill(stage: str, row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(config, corpora, tmp_path / "cut", Runtime(progress=kill))
    assert distill(config, corpora, tmp_path / "cut") == whole
    weights = [(each / "encoder/model.safetensors").read_bytes() for each in (folder, tmp_path / "cut")]
    assert weights[0] == weights[1]


def test_another_distillation_is_not_gone_on_with(corpora: Corpora, config: DistillationConfig, tmp_path: Path) -> None:
    short = replace(config, stage=replace(STAGE, epochs=1))
    distill(short, corpora, tmp_path / "out")
    with pytest.raises(TrainingError, match=r"another config\.json"):
        distill(replace(short, seed=1), corpora, tmp_path / "out")
    moved = Path(shutil.copytree(config.teacher, tmp_path / "moved" / Path(config.teacher).name))
    distill(replace(short, teacher=str(moved)), corpora, tmp_path / "out")  # the same teacher, from elsewhere


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_layers": (7,)}, "no such layer; got 7"),
        ({"augment": AugmentConfig(fresh=True, speeds=(0.9, 1.1))}, "in step with the teacher"),
        ({"clips_per_epoch": 3}, "do not fill a batch"),
        ({"teacher": "nowhere/at-all"}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_distilled_is_refused(
    change: dict[str, object], message: str, corpora: Corpora, config: DistillationConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read when it is imported
    with pytest.raises(TrainingError, match=message):
        distill(replace(config, **change), corpora, tmp_path / "out")


def test_the_recipe_is_within_the_bounds_of_the_default_bundle() -> None:
    config = load_distillation("compact")
    context = ContextConfig(backbone="scratch", architecture=config.architecture, unfrozen_layers=-1)
    branch = ContextBranch(context, 8)
    assert sum(p.numel() for p in branch.encoder.parameters()) < 6e6
