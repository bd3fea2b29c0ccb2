"""Ablations: every variant on every split, told by its difference from the whole recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ser_batch.errors import TrainingError  # noqa: E402
from support import toy_corpus  # noqa: E402
from training.config import load_config  # noqa: E402
from training.reproduction.protocols import Setting  # noqa: E402
from training.reproduction.results import describe  # noqa: E402
from training.reproduction.studies import WHOLE, ablate, load_variants  # noqa: E402
from training.reproduction.tables import ablation_table  # noqa: E402

VARIANTS = """
["half the rate".context_stage]
learning_rate = 5e-4

["a wider MLP".context]
hidden = [16, 8]
"""


def write(path: Path, text: str = VARIANTS) -> Path:
    path.write_text(text)
    return path


def test_a_variant_is_the_recipe_but_for_the_fields_it_names(tmp_path: Path) -> None:
    variants = load_variants(toy_corpus.CONFIG, write(tmp_path / "v.toml"))
    assert list(variants) == [WHOLE, "half the rate", "a wider MLP"]
    assert variants[WHOLE] == toy_corpus.CONFIG
    assert variants["half the rate"].context_stage.learning_rate == 5e-4
    assert variants["half the rate"].context == toy_corpus.CONFIG.context
    assert variants["a wider MLP"].context.hidden == (16, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "not a table"),
        ("[a.context]\nwidth = 1", "unknown keys: width"),
        ("[a.context_stage]\nlearning_rate = 1e-3", "changes nothing"),
        ("[a", "cannot be read"),
    ],
)
def test_bad_variants_are_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        load_variants(toy_corpus.CONFIG, write(tmp_path / "v.toml", text))
    with pytest.raises(TrainingError, match="cannot be read"):
        load_variants(toy_corpus.CONFIG, tmp_path / "none.toml")


def test_the_committed_variants_fit_their_recipe() -> None:
    variants = load_variants(load_config("whisper_base_tuned"))
    assert len(variants) > 4 and len(set(map(repr, variants.values()))) == len(variants)


def test_the_spectrogram_branch_has_variants_of_its_own(tmp_path: Path) -> None:
    corpus = toy_corpus.write_corpus(tmp_path / "audio")
    variants = write(tmp_path / "v.toml", '["without the arm".spectrogram]\nlayers = 0\n')
    found = ablate(Setting(toy_corpus.CONFIG, corpus, tmp_path / "runs"), "paper", [0], variants, "spectrogram")
    whole, without = (found["runs"][f"{name}/seed0"] for name in (WHOLE, "without the arm"))
    assert without["trained_parameters"] < whole["trained_parameters"]
    experiment = describe("spectrogram-ablation", toy_corpus.CONFIG, found, "ser-train ablate", 1.0)
    assert "spectrogram branch alone" in ablation_table([experiment])


def test_every_variant_is_trained_and_its_table_tells_the_difference(tmp_path: Path) -> None:
    corpus = toy_corpus.write_corpus(tmp_path / "audio")
    variants = write(tmp_path / "v.toml")
    setting = Setting(toy_corpus.CONFIG, corpus, tmp_path / "runs")
    found = ablate(setting, "paper", [0, 1], variants)
    assert sorted({run["variant"] for run in found["runs"].values()}) == sorted(
        load_variants(toy_corpus.CONFIG, variants)
    )
    assert len(found["runs"]) == 6
    again = ablate(setting, "paper", [0, 1], variants)
    assert again == found  # read, not trained again
    accuracies = {name: run["figures"]["accuracy"] for name, run in found["runs"].items()}
    gains = [100 * (accuracies[f"a wider MLP/seed{s}"] - accuracies[f"{WHOLE}/seed{s}"]) for s in (0, 1)]
    experiment = describe("ablation", toy_corpus.CONFIG, found, "ser-train ablate", 1.0)
    rows = [line for line in ablation_table([experiment]).splitlines() if line.startswith("| a wider MLP")]
    assert len(rows) == 1 and f"{sum(gains) / 2:.2f}".replace("-", "−") in rows[0]
