"""Heads of a run without its encoder: what is kept, what is refused, and the bundle that is made of them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import export
import export.heads
from export.cli import main
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.trust import trust_of
from ser_batch.command_line import USAGE
from ser_batch.errors import ExportError, OutputError
from support.shared_data import SHARED
from training.files import read_json
from training.runs import load_run

PUBLIC = "toy/encoder"


@pytest.fixture(scope="module")
def run(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with the one file that it lacks of a finished run, and its encoder beside it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(toy_run, folder)
    (folder / "bandwidth.json").write_text('{"hertz": 8000.0}')
    unseen = {"ua": 0.5, "labels": 4, "clips": 100, "corpora": ["EmoDB"]}
    (folder / "trust.json").write_text(json.dumps({"unseen": unseen}))
    load_run(folder).branches["wav2vec2"].encoder.save_pretrained(folder.parent / "encoder")
    return folder


@pytest.fixture(scope="module")
def heads(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept of it; read only."""
    out = tmp_path_factory.mktemp("kept") / "heads"
    export.keep_heads(run, out, backbone=PUBLIC)
    return out


def test_heads_hold_what_trained_a_card_and_the_public_name_of_the_encoder(run: Path, heads: Path) -> None:
    kept = {path.relative_to(heads).as_posix() for path in heads.rglob("*") if path.is_file()}
    described = {
        f"{name}.json" for name in ("config", "split", "environment", "backbone", "result", "bandwidth", "trust")
    }
    weights = {"wav2vec2/best.safetensors", "spectrogram/best.safetensors", "fusion.npz"}
    assert kept == described | weights | {"backbone.sha256", "MODEL_CARD.md"}
    assert (run / "backbone.safetensors").is_file()
    assert read_json(heads / "config.json")["context"]["backbone"] == PUBLIC
    card = (heads / "MODEL_CARD.md").read_text()
    assert card.startswith("# Model card: toy\n\n> This folder holds what was trained") and "CC BY-NC-SA" in card
    assert f"starts from the pretrained `{PUBLIC}`" in card and "UA 50.0 % on corpora that it was not" in card


def test_heads_need_a_new_folder_and_an_encoder_that_others_can_name(
    run: Path, heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OutputError, match="exists already"):
        export.keep_heads(run, heads, backbone=PUBLIC)
    for backbone in (None, str(run.parent / "encoder"), "../encoder", "encoder"):
        with pytest.raises(ExportError, match=r"name on the hub.*--backbone"):
            export.keep_heads(run, tmp_path / "heads", backbone=backbone)
    assert main(["heads", str(run), "--out", str(tmp_path / "heads"), "--licence", "CC0"]) == USAGE
    assert "got the encoder scratch" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("exported_before")
def test_one_command_makes_a_verified_bundle_of_the_heads_that_come_with_the_package(
    exported_bundle: Bundle,
    run: Path,
    heads: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export.heads, "WHISPER", heads)
    encoder, out = str(run.parent / "encoder"), tmp_path / "bundle"
    assert main(["whisper", "--out", str(out), "--backbone", encoder, "--name", "strong"]) == 0
    said, made = capsys.readouterr().out, load_bundle(out)
    assert "passed" in said.splitlines() and "torch" in said and f"next: ser-batch run AUDIO --bundle {out}" in said
    assert made.manifest.name == "strong" and made.manifest.branches == exported_bundle.manifest.branches
    assert made.manifest.provenance["config"]["context"]["backbone"] == PUBLIC
    measured = json.loads((heads / "result.json").read_text())["test"]["fused"]
    assert made.manifest.metrics["test"]["fused"]["accuracy"] == measured["accuracy"]
    found = export.verify(out, run=heads, backbone=encoder, backends=["onnxruntime"], threads=1)
    assert found.passed and "torch" in {each.engine for each in found.report.comparisons}


def test_without_heads_or_their_encoder_it_says_what_to_do(
    heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.heads, "WHISPER", tmp_path / "none")
    assert main(["whisper", "--out", str(tmp_path / "bundle")]) == USAGE
    assert "comes without heads for Whisper base" in capsys.readouterr().err
    monkeypatch.setattr(export.heads, "WHISPER", heads)
    for given in ([], ["--backbone", str(tmp_path / "absent")]):
        assert main(["whisper", "--out", str(tmp_path / "bundle"), *given]) == USAGE
        said = capsys.readouterr().err
        assert "cannot be loaded" in said and "(--backbone) that holds toy/encoder" in said
        assert "https://huggingface.co/toy/encoder" in said
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.shared
def test_the_heads_of_the_package_make_a_bundle_of_whisper_base(tmp_path: Path) -> None:
    encoder = SHARED / "backbones" / "whisper-base-encoder"
    if not encoder.is_dir():
        pytest.skip(f"no encoder at {encoder}")
    bundle = export.export_whisper(tmp_path / "bundle", backbone=encoder)
    stated = json.loads((export.heads.WHISPER / "trust.json").read_text())["unseen"]
    unseen = trust_of(bundle).unseen
    assert unseen is not None and unseen.ua == stated["ua"] > 0.35
    found = export.verify(bundle.root, backends=["onnxruntime"], threads=1)
    assert found.passed and bundle.manifest.provenance["config"]["context"]["backbone"] == "openai/whisper-base"
