from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export.assemble
from export.assemble import assemble, card_of, training_command, unheard_figures
from export.model_card import licence_note
from export.onnx import Exported
from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.fusion import Fusion
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.bundle.trust import trust_of
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, ExportError, OutputError
from ser_batch.verification.metadata import read_metadata
from support import toy_corpus
from support.toy_corpus import write_corpora
from support.toy_run import CLIP, CONFIG, make_toy_run
from training.config import load_config
from training.data.ravdess import LABELS
from training.runs import Run, load_run
from training.stages import train


@pytest.fixture
def run(toy_run: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The toy run, where any export would be work that should not have begun."""

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("exported before the checks were done")

    monkeypatch.setattr(export.assemble, "export_branch", unexpected)
    return load_run(toy_run)


def test_the_bundle_holds_the_run(exported_bundle: Bundle, toy_run: Path) -> None:
    manifest, run = exported_bundle.manifest, load_run(toy_run)
    assert (manifest.name, manifest.labels, manifest.clip) == ("toy", LABELS, CLIP)
    assert tuple(branch.name for branch in manifest.branches) == tuple(run.branches) == run.fusion.branches
    np.testing.assert_array_equal(exported_bundle.fusion.weight, run.fusion.weight)
    for branch in manifest.branches:
        assert json.loads(read_metadata(exported_bundle.path(branch.file))["labels"]) == list(LABELS)


def test_the_reference_is_what_torch_gives(exported_bundle: Bundle, toy_run: Path) -> None:
    reference, run = exported_bundle.reference(), load_run(toy_run)
    for name, branch in run.branches.items():
        with torch.no_grad():
            rows = branch(torch.from_numpy(reference.waveform)).softmax(dim=1).numpy()
        np.testing.assert_allclose(reference.branches[name], rows, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(reference.fused, run.fusion(reference.branches))


def test_provenance_says_where_it_came_from(exported_bundle: Bundle) -> None:
    provenance = exported_bundle.manifest.provenance
    assert provenance["config"]["context"]["backbone"] == "scratch"
    assert (provenance["seed"], provenance["data"], provenance["protocol"]) == (0, "ravdess", "paper")
    assert provenance["split"] == {"name": "paper-seed0", "train": 3, "validation": 2, "test": 16}
    assert provenance["labels"] == list(LABELS)
    assert set(provenance["export"]["packages"]) >= {"torch", "onnx", "transformers"}
    assert all(provenance["export"]["packages"][name] for name in ("torch", "onnx", "transformers"))


def test_metrics_are_the_run_s_test_figures_with_their_protocol(exported_bundle: Bundle, toy_run: Path) -> None:
    metrics = exported_bundle.manifest.metrics
    measured = json.loads((toy_run / "result.json").read_text())["test"]
    assert (metrics["protocol"], metrics["split"]) == ("paper", "paper-seed0")
    assert list(metrics["test"]) == ["wav2vec2", "spectrogram", "fused"]
    for output, figures in metrics["test"].items():
        assert figures == {key: measured[output][key] for key in figures}
        assert figures["accuracy"] == measured[output]["accuracy"]


def test_licence_and_card_are_in_the_bundle(exported_bundle: Bundle) -> None:
    assert "CC BY-NC-SA 4.0" in exported_bundle.manifest.licence
    card = exported_bundle.path("MODEL_CARD.md").read_text(encoding="utf-8")
    assert exported_bundle.manifest.licence in card


@pytest.mark.usefixtures("exported_before")
def test_what_is_known_of_unseen_corpora_is_in_the_manifest_and_on_the_card(tmp_path: Path, toy_run: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text('{"unseen": {"ua": 0.5, "labels": 8, "clips": 9, "corpora": ["EmoDB"]}, "bandwidth_hz": 3400}')
    run = load_run(toy_run)
    bundle = assemble(run, tmp_path / "bundle", trust=path).bundle
    assert bundle.manifest.metrics["trust"] == json.loads(path.read_text())
    assert trust_of(bundle).narrow == 3400
    card = (bundle.root / "MODEL_CARD.md").read_text()
    assert "## Unseen corpora\n\nUA 50.0 % on corpora that it was not trained on: EmoDB" in card
    assert "nothing above 3.4 kHz" in card
    path.write_text('{"unseen": {"ua": 50}}')
    with pytest.raises(BundleError, match="lacks clips, corpora, labels"):
        assemble(run, tmp_path / "other", trust=path)


def test_an_unknown_corpus_needs_a_licence(tmp_path: Path, run: Run) -> None:
    unknown = dataclasses.replace(run, provenance={**run.provenance, "data": "mine"})
    with pytest.raises(ExportError, match="--licence"):
        assemble(unknown, tmp_path / "bundle")


def test_an_existing_bundle_is_refused_before_any_export(tmp_path: Path, run: Run) -> None:
    with pytest.raises(OutputError, match="exists already"):
        assemble(run, tmp_path)


def test_a_run_without_test_figures_is_refused(tmp_path: Path, run: Run) -> None:
    untested = dataclasses.replace(run, metrics={"test": {"wav2vec2": run.metrics["test"]["wav2vec2"]}})
    with pytest.raises(ExportError, match="no test figures of spectrogram, fused"):
        assemble(untested, tmp_path / "bundle")


def test_a_fusion_of_another_order_is_refused(tmp_path: Path, run: Run) -> None:
    swapped = Fusion(run.fusion.weight, run.fusion.bias, run.fusion.branches[::-1])
    with pytest.raises(ExportError, match="another order"):
        assemble(dataclasses.replace(run, fusion=swapped), tmp_path / "bundle")


def test_the_command_names_the_recipe_only_if_it_gives_this_configuration(tmp_path: Path, run: Run) -> None:
    assert training_command(run) == "ser-train run toy/config.json --data path/to/ravdess --out runs/toy"
    compact = dataclasses.replace(run, config=load_config("compact", seed=5))
    assert training_command(compact) == (
        "ser-train run compact --data path/to/ravdess --out runs/compact --seed 5 --protocol paper --fold 0"
    )


def test_nothing_is_left_where_an_export_fails(tmp_path: Path, toy_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExportError("no")

    monkeypatch.setattr(export.assemble, "export_branch", refuse)
    with pytest.raises(ExportError):
        assemble(load_run(toy_run), tmp_path / "out" / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_toy_run_is_what_training_reads(tmp_path: Path) -> None:
    assert load_run(make_toy_run(tmp_path / "run")).config == CONFIG


def named_only(branch: torch.nn.Module, path: Path, *, name: str, labels: tuple[str, ...], clip: ClipRule) -> Exported:
    """An export without a graph, for what is written beside graphs."""
    path.write_bytes(b"no graph")
    with torch.no_grad():
        rows = branch(torch.from_numpy(synthetic_clips(clip))).softmax(dim=1).numpy()
    return Exported(name, path, nodes=1, seconds=0.0, max_difference=0.0, probabilities=rows)


def test_a_run_over_several_corpora_names_each_with_its_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.assemble, "export_branch", named_only)
    folder = tmp_path / "corpora"
    folder.mkdir()
    corpora = write_corpora(folder)
    fusion = replace(toy_corpus.CONFIG.fusion, fit_on="validation", solver="shrunk")
    train(replace(toy_corpus.CONFIG, protocol="given", fusion=fusion), corpora.for_training(), tmp_path / "run")
    run = load_run(tmp_path / "run")
    bundle = assemble(run, tmp_path / "bundle").bundle
    assert "fine: CC0; coarse: CC0" in bundle.manifest.licence
    assert "unheard" not in bundle.manifest.metrics  # it was trained on both
    card = (tmp_path / "bundle/MODEL_CARD.md").read_text()
    assert "| fine | calm, neutral | CC0 |" in card
    assert "--corpora CORPORA.toml --train-on fine --train-on coarse --out" in card
    trained = {"fine": run.provenance["corpora"]["fine"]}
    encoder = {"teacher": "large", "layers": [2], "clips": 9, "corpora": {"fine": "CC0", "talk": "CC BY 4.0"}}
    alone = replace(run, provenance={**run.provenance, "corpora": trained, "distillation": encoder})
    assert list(unheard_figures(alone)) == ["coarse"]
    note = licence_note(alone.provenance)
    assert "fine: CC0. The encoder also learnt from the speech, without labels, of talk: CC BY 4.0." in note
    assert "| coarse | 8 | 2 |" in card_of(alone, note)


def test_the_bandwidth_that_a_run_was_trained_for_is_stated_unless_a_file_states_it(
    toy_run: Path, tmp_path: Path
) -> None:
    run = load_run(toy_run)
    assert export.assemble._stated(run, None) == {}
    measured = dataclasses.replace(run, provenance={**run.provenance, "bandwidth_hz": 3400.0})
    assert export.assemble._stated(measured, None) == {"trust": {"bandwidth_hz": 3400.0}}
    (tmp_path / "trust.json").write_text(json.dumps({"bandwidth_hz": 8000.0}))
    assert export.assemble._stated(measured, tmp_path / "trust.json") == {"trust": {"bandwidth_hz": 8000.0}}
    known = dataclasses.replace(run, folder=tmp_path)  # what `ser-train loco` left in the run's own folder
    assert export.assemble._stated(known, None) == {"trust": {"bandwidth_hz": 8000.0}}
