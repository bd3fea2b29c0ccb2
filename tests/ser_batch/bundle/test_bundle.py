from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.fusion import save_fusion
from ser_batch.bundle.reference import Reference, save_reference
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError
from support.bundles import reseal
from support.toy import LABELS, toy_fusion

SMALL = ClipRule(sample_rate=8_000, samples=8_000)


@pytest.fixture
def copy(tmp_path: Path, toy_bundle: Bundle) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(toy_bundle.root, tmp_path / "copy"))


def test_a_written_bundle_loads_as_it_was(toy_bundle: Bundle) -> None:
    loaded = load_bundle(toy_bundle.root)
    assert loaded.manifest == toy_bundle.manifest
    assert loaded.sha256 == toy_bundle.sha256
    assert loaded.labels == LABELS
    np.testing.assert_array_equal(loaded.fusion.weight, toy_fusion().weight)
    assert set(loaded.manifest.files) == {
        "MODEL_CARD.md", "fusion.npz", "reference.npz", "spectrogram.onnx", "wav2vec2.onnx",
    }  # fmt: skip


def test_its_identity_is_the_hash_of_its_manifest(toy_bundle: Bundle, copy: Path) -> None:
    digest = hashlib.sha256((toy_bundle.root / "manifest.json").read_bytes()).hexdigest()
    assert toy_bundle.id == f"toy-{digest[:12]}"
    reseal(copy, lambda data: data.update(licence="another"))
    assert load_bundle(copy).id != toy_bundle.id


def test_the_reference_holds_what_the_model_gives(toy_bundle: Bundle) -> None:
    reference = toy_bundle.reference()
    np.testing.assert_array_equal(reference.fused, toy_bundle.fusion(reference.branches))


def test_path_knows_only_listed_files(toy_bundle: Bundle) -> None:
    assert toy_bundle.path("wav2vec2.onnx").is_file()
    with pytest.raises(BundleError, match="no file"):
        toy_bundle.path("../secret")


@pytest.mark.parametrize("member", ["wav2vec2.onnx", "fusion.npz", "reference.npz", "MODEL_CARD.md"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_damage_to_any_file_is_named(copy: Path, member: str, damage: str) -> None:
    path, whole = copy / member, (copy / member).read_bytes()
    changed = {"flip": bytes([whole[0] ^ 1]) + whole[1:], "cut": whole[:-1], "grow": whole + b"\0"}
    path.unlink() if damage == "remove" else path.write_bytes(changed[damage])
    message = "cannot be read" if damage == "remove" else "damaged"
    with pytest.raises(BundleError, match=f"{member} .*{message}|{member} {message}") as caught:
        load_bundle(copy)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("extra", ["evil.py", "sub/more.onnx", ".hidden"])
def test_a_file_that_is_not_listed_is_refused(copy: Path, extra: str) -> None:
    (copy / extra).parent.mkdir(exist_ok=True)
    (copy / extra).write_text("x")
    with pytest.raises(BundleError, match=f"not listed.*{extra}"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "place",
    [lambda p: p, lambda p: p / "manifest.json", lambda p: p / "absent"],
    ids=["empty", "file", "absent"],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, copy: Path, place: Callable[[Path], Path]) -> None:
    where = tmp_path / "nothing" if place(tmp_path) == tmp_path else place(copy)
    if place(tmp_path) == tmp_path:
        where.mkdir()
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(where)


def test_a_run_of_training_in_a_bundle_s_place_says_how_it_becomes_one(tmp_path: Path) -> None:
    for name in ("config.json", "result.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BundleError, match=r"got no manifest.json in it; .* ser-export onnx .* --out my-bundle"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("member", ["wav2vec2.onnx", "manifest.json"])
def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path, member: str) -> None:
    shutil.move(copy / member, tmp_path / "outside")
    (copy / member).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="links out of the bundle"):
        load_bundle(copy)


def test_a_linked_directory_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.move(copy / "wav2vec2.onnx", tmp_path / "outside" / "wav2vec2.onnx")
    (copy / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(copy)
    rename = {"wav2vec2.onnx": "sub/wav2vec2.onnx"}

    def move(data: dict[str, Any]) -> None:
        data["branches"][0]["file"] = rename["wav2vec2.onnx"]
        data["files"] = {rename.get(name, name): digest for name, digest in data["files"].items()}

    reseal(copy, move)
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(copy)


def test_a_bundle_reached_through_a_link_loads(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy)
    assert load_bundle(tmp_path / "link").labels == LABELS


def test_a_pipe_is_refused_and_does_not_block(copy: Path) -> None:
    (copy / "wav2vec2.onnx").unlink()
    os.mkfifo(copy / "wav2vec2.onnx")
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)


def test_a_fusion_of_other_labels_is_refused(copy: Path) -> None:
    save_fusion(toy_fusion(classes=7), copy / "fusion.npz")
    reseal(copy)
    with pytest.raises(BundleError, match="fusion and labels do not fit; got 7 classes; expected 8"):
        load_bundle(copy)


def test_a_fusion_of_the_other_order_is_refused(copy: Path) -> None:
    save_fusion(toy_fusion(("spectrogram", "wav2vec2")), copy / "fusion.npz")
    reseal(copy)
    with pytest.raises(BundleError, match="order the branches differently"):
        load_bundle(copy)


def test_swapped_branches_in_the_manifest_are_refused(copy: Path) -> None:
    reseal(copy, lambda data: data["branches"].reverse())
    with pytest.raises(BundleError, match="order the branches differently"):
        load_bundle(copy)


def test_a_fusion_that_is_no_npz_is_refused(copy: Path) -> None:
    (copy / "fusion.npz").write_bytes(b"PK not really")
    reseal(copy)
    with pytest.raises(BundleError, match="not a readable"):
        load_bundle(copy)


def test_reference_clips_of_another_length_are_refused(copy: Path) -> None:
    rows = np.full((1, 8), 0.125, np.float32)
    names = ("wav2vec2", "spectrogram")
    short = Reference(np.zeros((1, 100), np.float32), dict.fromkeys(names, rows), rows)
    save_reference(short, copy / "reference.npz")
    reseal(copy)
    with pytest.raises(BundleError, match="do not fit the manifest"):
        load_bundle(copy).reference()


def test_the_default_bundle_is_the_one_without_a_path(monkeypatch: pytest.MonkeyPatch, toy_bundle: Bundle) -> None:
    monkeypatch.setattr("ser_batch.bundle.bundle.default_root", lambda: toy_bundle.root)
    assert load_bundle().id == toy_bundle.id


def test_opening_a_bundle_imports_no_runtime() -> None:
    heavy = ("onnxruntime", "pyarrow", "rich", "soxr", "soundfile", "click")
    script = f"import sys, ser_batch.bundle.bundle; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
