"""Recipes: all load, nothing in them is let through unread, and the defaults are Table II."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ser_batch.errors import TrainingError
from ser_batch.strict_json import decode
from training.config import BEFORE, RECIPES, RunConfig, Stage, load_config, to_dict


@pytest.mark.parametrize("recipe", sorted(p.stem for p in RECIPES.glob("*.toml")))
def test_every_recipe_loads_and_survives_a_runs_config_json(recipe: str, tmp_path: Path) -> None:
    config = load_config(recipe)
    assert config.recipe == recipe
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(to_dict(config)))
    assert load_config(saved) == config


def test_the_papers_recipe_is_the_defaults() -> None:
    assert load_config("paper") == RunConfig()


def test_a_run_begun_before_a_field_existed_does_as_it_did(tmp_path: Path) -> None:
    raw = to_dict(load_config("paper"))
    for name in BEFORE:
        *tables, field = name.split(".")
        place = raw
        for table in tables:
            place = place[table]
        del place[field]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = load_config(tmp_path / "config.json")
    assert (config.spectrogram.norm, config.spectrogram.positions) == ("post", "none")
    assert not config.spectrogram.residual_mean and not config.spectrogram.balance
    assert config.spectrogram.statistics == "clean"
    assert config.spectrogram.mel.reference == config.context.level == "full scale"
    assert config.context_stage.decay == config.spectrogram_stage.decay == "all"


def test_a_recipes_clip_is_clamped_and_that_of_a_run_from_before_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[clip]\noffset = 0.2")
    assert RunConfig().clip.clamp_offset and load_config(tmp_path / "mine.toml").clip.clamp_offset
    raw = to_dict(RunConfig())
    del raw["clip"]["clamp_offset"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert not load_config(tmp_path / "config.json").clip.clamp_offset


def test_the_defaults_are_table_2() -> None:
    config = RunConfig()
    context, spectrogram, fusion = config.context_stage, config.spectrogram_stage, config.fusion_stage
    assert (context.optimizer, context.learning_rate, context.schedule) == ("adamw", 1e-4, "cosine")
    assert (context.epochs, context.patience, context.monitor) == (120, 10, "accuracy")
    assert (spectrogram.optimizer, spectrogram.learning_rate, spectrogram.schedule) == ("sgd", 1e-2, "step")
    assert (spectrogram.step_size, spectrogram.step_gamma) == (10, 0.7)
    assert (spectrogram.epochs, spectrogram.patience, spectrogram.monitor) == (500, 25, "loss")
    assert (fusion.optimizer, fusion.learning_rate, fusion.schedule) == ("adam", 5e-4, "constant")
    assert (fusion.epochs, fusion.patience, fusion.monitor) == (30, 5, "macro_f1")
    for stage in (context, spectrogram, fusion):
        assert (stage.batch_size, stage.clip_norm, stage.label_smoothing, stage.mixup) == (32, 1.0, 0, 0)


def test_the_defaults_are_the_rest_of_the_paper() -> None:
    config = RunConfig()
    assert (config.context.backbone, config.context.unfrozen_layers) == ("facebook/wav2vec2-base", 3)
    assert (config.context.hidden, config.context.dropout) == ((256, 256), 0.3)
    assert (config.spectrogram.mel.n_mels, config.spectrogram.channels) == (128, (16, 32, 64, 64))
    assert (config.spectrogram.pool, config.spectrogram.layers, config.spectrogram.heads) == ((2, 4), 4, 4)
    assert (config.augment.snrs, config.augment.fresh, config.protocol) == ((10, 20, 30), False, "paper")
    assert config.clip.samples / config.clip.sample_rate == 3


def test_overrides_replace_top_level_fields() -> None:
    config = load_config("paper", seed=7, protocol="emobox")
    assert (config.seed, config.protocol) == (7, "emobox")
    with pytest.raises(TrainingError, match="unknown keys: sede"):
        load_config("paper", sede=7)


def test_values_keep_their_types() -> None:
    raw = {"augment": {"snrs": [5, 10]}, "spectrogram": {"pool": [2, 4]}}
    config = decode(RunConfig, raw, "here", TrainingError)
    assert config.augment.snrs == (5.0, 10.0) and isinstance(config.augment.snrs[0], float)
    assert config.spectrogram.pool == (2, 4)


def test_a_recipe_without_a_name_has_its_files(tmp_path: Path) -> None:
    (tmp_path / "my recipe.toml").write_text("seed = 1")
    (tmp_path / "named.toml").write_text("recipe = 'other'")
    assert load_config(tmp_path / "my recipe.toml").recipe == "my-recipe"
    assert load_config(tmp_path / "named.toml").recipe == "other"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sede = 1", "unknown keys: sede"),
        ("[context]\nbackbones = 'x'", "unknown keys: backbones"),
        ("[spectrogram.mel]\nhopp = 3", "unknown keys: hopp"),
        ("seed = 'one'", "seed"),
        ("seed = true", "seed"),
        ("seed = 1.5", "seed"),
        ("protocol = 'random'", "'random'"),
        ("context = 3", "context"),
        ("[augment]\nsnrs = 10", "snrs"),
        ("[augment]\nsnrs = ['loud']", "snrs"),
        ("[augment]\ngain = 3", "fresh"),
        ("[augment]\nkeep_original = 1", "keep_original"),
        ("[spectrogram]\npool = [2]", "pool"),
        ("[context]\narchitecture = 'small'", "architecture"),
        ("[spectrogram.mel]\nhop = 500", "hop 500"),
        ("[clip]\nsamples = 0", "samples 0"),
        ("[context_stage]\nlearning_rate = 1e-3", "optimizer"),
        ("[fusion_stage]\noptimizer='adam'\nlearning_rate=1\nepochs=0\npatience=1\nmonitor='loss'", "epochs"),
        ("seed =", "cannot be read"),
        ("[clip]\nsample_rate = 16000\nsamples = 48000", "48 kHz"),
        ("[augment]\nfresh = true\nspeeds = []", "speeds"),
        ("[augment]\nfresh = true\nspeeds = [0.0]", "speeds"),
        ("[augment]\nfresh = true\ngain = -3", "gain"),
        ("[augment]\nfresh = true\ntime_mask = 279", "time_mask is wider .* 278"),
        ("[augment]\nfresh = true\nband_mask = 129", "band_mask is wider .* 128"),
        ("[spectrogram]\nheads = 3", "3 heads, width 64"),
        ("[spectrogram]\npool = [0, 1]", "pool"),
        ("[context]\nname = 'targets'", "'targets'"),
        ("recipe = 'a/b'", "'a/b'"),
        ("[spectrogram]\npool = [200, 1]", "width 0"),
        ("[clip]\nsamples = 1000", "shorter than one frame"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=named) as caught:
        load_config(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"patience": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"clip_norm": -1.0},
        {"step_size": 0},
        {"label_smoothing": 1.0},
        {"mixup": -0.1},
    ],
)
def test_a_stage_that_cannot_train_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        dataclasses.replace(Stage("adam", 1e-3, epochs=1, patience=1, monitor="loss"), **changes)


def test_unknown_recipes_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nothing.*compact"):
        load_config("nothing")
    for name, content in (("a.json", b"[1]"), ("b.json", b"{"), ("c.toml", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainingError, match=name):
            load_config(tmp_path / name)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_recipes_of_ours_do_not_fit_the_fusion_on_clips_that_chose_or_were_trained_on(name: str) -> None:
    assert load_config(name).fusion.fit_on == ("training" if name == "paper" else "out-of-fold")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_no_recipe_changes_a_level_that_its_branches_do_not_hear(name: str) -> None:
    config = load_config(name)
    deaf = config.context.level == "clip" == config.spectrogram.mel.reference
    assert not (deaf and config.augment.gain)


def test_a_ridge_stage_needs_nothing_that_it_does_not_read(tmp_path: Path) -> None:
    """A recipe that leaves it out is the one that stated what was asked of every stage before: runs of it go on."""
    recipe = (RECIPES / "whisper_base_tuned.toml").read_text()
    asked = "learning_rate = 1e-3\nepochs = 1\npatience = 1"
    (tmp_path / "whisper_base_tuned.toml").write_text(
        recipe.replace('optimizer = "ridge"', f'optimizer = "ridge"\n{asked}', 1)
    )
    assert asked not in recipe and load_config(tmp_path / "whisper_base_tuned.toml") == load_config(
        "whisper_base_tuned"
    )
    (tmp_path / "b.toml").write_text('[context_stage]\noptimizer = "adamw"\nmonitor = "loss"\n')
    with pytest.raises(TrainingError, match="learning_rate"):
        load_config(tmp_path / "b.toml")
