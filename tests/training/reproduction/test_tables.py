"""Tables, claims, figures and pages from made-up results, their numbers checked by hand; the committed page is true."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from ser_batch.errors import TrainingError
from support import toy_results
from support.shared_data import COMMITTED, REPOSITORY
from training.config import ancestor, ours, paper
from training.reproduction.figures import curves_figure
from training.reproduction.page import (
    REGIONS,
    assumptions_table,
    config_fields,
    draw,
    filled,
    is_current,
    renew,
    write_page,
)
from training.reproduction.paper import (
    EMOBOX,
    FIG_2_CORRECT,
    TABLE_I,
    TABLE_III,
    TABLE_IV,
    TABLE_V,
    claims_table,
)
from training.reproduction.results import save
from training.reproduction.tables import notes, protocol_table, settings, table_iii, table_iv, table_v
from training.robustness.report import ROBUSTNESS

PAGE = REPOSITORY / "docs" / "reproduction.md"
PNG = b"\x89PNG"


def row(table: str, *starts: str) -> list[str]:
    """The cells of the one row that begins with `starts`."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    (found,) = [cells for cells in rows if tuple(cells[: len(starts)]) == starts]
    return found


def test_the_papers_figures_agree_with_each_other() -> None:
    assert sum(TABLE_I.values()) == 1440
    assert TABLE_V["context"] == TABLE_IV[3]
    assert TABLE_III["the paper"].accuracy == round(TABLE_V["logistic regression"].accuracy, 1)
    assert sum(of for _, of in FIG_2_CORRECT.values()) == TABLE_I["test"]
    assert sum(right for right, _ in FIG_2_CORRECT.values()) == 139 == round(0.9267 * 150)
    assert len(EMOBOX) == 6


def test_table_iii_puts_ours_beside_the_published() -> None:
    table = table_iii([toy_results.protocol()])
    assert row(table, "RELUEM (2025)")[2:6] == ["89.50", "87.00", "85.00", "86.00"]
    ours = row(table, "ours: toy, recipe paper")
    assert ours[1] == "2 seed(s)" and ours[2] == "95.00 ± 7.07" and ours[-1] == "+2.30"
    assert "Not measured here: wav2vec2-base with recipe paper" in table
    assert "`ser-train toy`, 12 s" in table and "(#settings-of-the-recipes)" in table


def test_what_is_measured_is_not_said_to_be_missing() -> None:
    assert "Not measured" not in table_iii([toy_results.protocol(backbone="wav2vec2-base")])


def test_table_iv_has_every_depth_of_the_paper_and_of_ours() -> None:
    table = table_iv([toy_results.unfreezing()])
    assert row(table, "0")[1:6] == ["–"] * 4 + ["50.00"]
    assert row(table, "1")[1] == "82.67" and row(table, "1")[5] == "90.00"
    assert row(table, "1")[-2:] == ["+7.33", "2"]
    assert row(table, "3")[-2] == "−13.67"
    assert row(table, "9")[1] == "17.33" and row(table, "9")[5] == "–"
    assert "6 layers; the paper's has 12" in table


def test_table_v_has_what_each_fusion_was_fitted_on() -> None:
    table = table_v([toy_results.fusion()])
    cells = row(table, "logistic regression", "training")
    assert cells[2] == "92.67" and cells[6] == "90.00" and cells[10] == "69.9–97.2" and cells[11] == "−2.67"
    assert cells[12] == "+3 −0, p 0.25"
    assert cells[13].startswith("10.0 → ")  # right 90 % of the time at 80 %
    assert row(table, "context", "–")[12] == ""
    assert "Not measured here: fusions fitted on out-of-fold probabilities" in table


def test_nothing_measured_leaves_the_papers_figures() -> None:
    for made, start in ((table_iii([]), "the paper"), (table_iv([]), "9"), (table_v([]), "gated")):
        assert row(made, start) and "Not measured here" in made
    assert "whisper-large-v3" in protocol_table([], "emobox")


def test_protocols_have_one_table() -> None:
    table = protocol_table([toy_results.protocol()], "paper")
    fused = row(table, "toy, recipe paper", "fused")
    assert fused[2] == "95.00 ± 7.07" and fused[9] == "2 × 1" and fused[-1] == "+6 −0, p 0.031"
    assert "the other take of 70.00 ± 0.00 % of the test clips was in training" in table
    emobox = protocol_table([toy_results.protocol("emobox")], "emobox")
    assert row(emobox, "wavlm-large, frozen (EmoBox)")[2:5] == ["72.00", "72.22", "71.42"]
    assert len({line.count("|") for line in emobox.splitlines() if line[:1] == "|"}) == 1


def test_a_figure_stands_beside_its_cap_and_its_commit_keeps_its_mark() -> None:
    made, changed = toy_results.protocol(), {"spectrogram_stage.epochs": [500, 40], "context_stage.epochs": [120, 5]}
    capped = replace(made, changed=changed, measured=made.measured | {"git": "0123456789abcdef+"})
    table = protocol_table([capped], "paper")
    assert "toy, recipe paper (spectrogram 40 of 500 epochs, context 5 of 120 epochs) | fused |" in table
    assert "commit 0123456789ab+, toy" in table and "commit 0123456789ab, toy" in protocol_table([made], "paper")
    assert "(spectrogram 40 of 500 epochs, context 5 of 120 epochs): 95.00 %" in claims_table([capped])
    own = replace(made, changed=changed | {"spectrogram_stage.schedule": ["step", "one_cycle"]})
    assert "(context 5 of 120 epochs)" in protocol_table([own], "paper")  # a schedule of its own is whole


def test_claims_are_met_by_their_figures() -> None:
    table = claims_table([toy_results.protocol(), toy_results.unfreezing(), toy_results.fusion()])
    assert "toy/paper: 1147 / 143 / 150 | none" in table
    assert "toy/paper: 95.00 % ± 7.07 (n 2) | +2.33 points" in table
    assert "toy/paper: 3 of 6 by validation (90.00 %; test 75.00 %) | none" in table  # the test's best is another
    assert "toy/paper: 3 layers: 75.00 % | not comparable: 6 layers in all, 3 unfrozen" in table
    assert "toy/paper, training: +15.00 points | +11.00 points" in table
    assert claims_table([]).count("not measured here") == table.count("\n") - 1


def test_every_field_of_the_configuration_has_a_source_or_is_an_assumption() -> None:
    found = dict(config_fields())
    assert {name.partition(".")[0] for name in found} == {
        "LogMelConfig",
        "SpectrogramConfig",
        "ContextConfig",
        "AugmentConfig",
        "Stage",
        "FusionConfig",
        "RunConfig",
    }
    for name, each in found.items():
        known = {key: text for key, text in each.metadata.items() if key in ("paper", "ancestor", "ours")}
        assert known and all(known.values()), f"{name} has neither a place in the paper nor an assumption"


def test_assumptions_are_the_fields_that_the_paper_leaves_open() -> None:
    @dataclass
    class Some:
        given: int = field(default=3, metadata=paper("Table I", "So many."))
        assumed: float = field(default=0.5, metadata=ancestor("A share."))
        both: str = field(default="a", metadata=paper("IV-A", "Kind.") | ours("Or b."))

    table = assumptions_table((f"Some.{each.name}", each) for each in fields(Some))
    assert "given" not in table
    assert "| `Some.assumed` | `0.5` | ancestor | A share. |" in table
    assert "| `Some.both` | `'a'` | ours | IV-A: Kind. Or b. |" in table
    names = assumptions_table(config_fields())
    for name in ("SpectrogramConfig.cnn_dropout", "AugmentConfig.fresh", "FusionConfig.folds", "RunConfig.clip"):
        assert f"`{name}`" in names
    assert "`LogMelConfig.n_mels`" not in names


def test_figures_are_drawn_as_png_and_svg(tmp_path: Path) -> None:
    names = draw([toy_results.protocol(), toy_results.unfreezing(), toy_results.fusion()], tmp_path)
    assert len(names) == len(set(names)) == 5
    for name in names:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == PNG
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    assert "wav2vec2" in (tmp_path / "fig3-toy-paper.svg").read_text()
    assert "the paper" in (tmp_path / "fig4-toy-paper.svg").read_text()


def test_a_stage_that_no_validation_clips_watched_is_drawn_by_its_loss(tmp_path: Path) -> None:
    (run, *_) = toy_results.protocol().results["runs"].values()
    unwatched = {**run["stages"]["spectrogram"], "validation_accuracy": []}
    curves_figure({**run["stages"], "spectrogram": unwatched}, tmp_path, "curves", "Training")
    assert "spectrogram" in (tmp_path / "curves.svg").read_text()


def test_a_page_holds_tables_and_figures(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for made in (toy_results.protocol(), toy_results.unfreezing(), toy_results.fusion()):
        save(made, results)
    page = write_page(tmp_path, results, ["fig4-toy-paper"]).read_text()
    assert "95.00 ± 7.07" in page and "![fig4-toy-paper](figures/fig4-toy-paper.png)" in page
    assert len(re.findall("^## ", page, re.MULTILINE)) == len(REGIONS) + 1


def test_only_generated_regions_are_renewed(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results"
    save(toy_results.protocol(), results)
    page.write_text("by hand\n<!-- generated: table-iii -->\nold\n<!-- end of table-iii -->\nalso by hand\n")
    assert not is_current(page, results)
    assert renew(page, results) and not renew(page, results) and is_current(page, results)
    text = page.read_text()
    assert text.startswith("by hand\n") and text.endswith("\nalso by hand\n") and "95.00" in text and "old" not in text
    new = tmp_path / "new.md"
    assert renew(new, results) and not renew(new, results) and "95.00" in new.read_text()
    new.write_text("by hand alone\n")
    with pytest.raises(TrainingError, match="no generated region"):
        renew(new, results)


def test_a_region_nobody_generates_is_refused() -> None:
    with pytest.raises(TrainingError, match="no such generated region: table-x"):
        filled("<!-- generated: table-x -->\n<!-- end of table-x -->", [])
    with pytest.raises(TrainingError, match="not closed"):
        filled("<!-- generated: table-iii -->\n", [])


def test_the_committed_page_says_what_the_committed_results_say() -> None:
    assert set(re.findall(r"<!-- generated: ([\w-]+) -->", PAGE.read_text())) == {*REGIONS, ROBUSTNESS}
    assert is_current(PAGE, COMMITTED), "run ser-train tables --page docs/reproduction.md --results training/results"


SETTINGS = replace(toy_results.protocol(), changed={"augment.versions": [0, 11], "refit": [False, True]})
OLDER = replace(
    toy_results.protocol("emobox"), changed={"augment.versions": [0, 5], "spectrogram_stage.epochs": [500, 24]}
)


def test_a_note_tells_what_its_settings_differ_in_from_the_listed() -> None:
    (text,) = notes([SETTINGS, OLDER], [OLDER, SETTINGS])
    same, other = text.splitlines()
    assert same.endswith("[Settings of the recipes](#settings-of-the-recipes).") and "`ser-train toy`, 12 s" in same
    assert other.endswith("but for `augment.versions` 5; `refit` False; `spectrogram_stage.epochs` 24.")
    assert notes([], [SETTINGS]) == []


def test_settings_are_those_of_the_papers_split() -> None:
    text = settings([OLDER, SETTINGS])
    assert text.count("**toy, recipe paper**") == 1
    assert "| `augment.versions` | 0 | 11 |" in text and "| `refit` | False | True |" in text
    assert "spectrogram_stage" not in text
    assert "| `augment.versions` | 0 | 5 |" in settings([OLDER])  # nothing else stands for the recipe


def test_a_recipe_that_changes_nothing_is_the_papers() -> None:
    assert "As the paper." in settings([replace(SETTINGS, changed={})])
