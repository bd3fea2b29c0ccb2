"""Bundles and their artefacts: written in one step, artefacts inside the checksums and outside the identity."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_batch.bundle import Branch, writing
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.fusion import Fusion
from ser_batch.bundle.manifest import ARTEFACT_PREFIXES
from ser_batch.bundle.writing import add_artefacts
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, OutputError
from support.toy import LABELS, make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)
ENGINE = "engines/trt-rtx-fp32-ampere/wav2vec2.engine"
GRAPHS = {f"precisions/int8/{name}.onnx": name.encode() for name in ("wav2vec2", "spectrogram")}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists and is not a bundle"):
        make_toy_bundle(target, clip=SMALL)
    assert target.read_text() == "mine"


def overwrite(arguments: dict[str, Any]) -> None:
    arguments["overwrite"] = True


def test_overwriting_replaces_the_whole_bundle(tmp_path: Path) -> None:
    first = make_toy_bundle(tmp_path / "bundle", clip=SMALL, branches=("one", "two"))
    second = make_toy_bundle(tmp_path / "bundle", clip=SMALL, branches=("one",), edit=overwrite)
    assert load_bundle(tmp_path / "bundle").id == second.id != first.id
    assert not (tmp_path / "bundle" / "two.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_working_directory_can_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make_toy_bundle(Path(), clip=SMALL, edit=overwrite)
    assert load_bundle(tmp_path / "here").labels == LABELS
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_overwriting_never_removes_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not a bundle"):
        make_toy_bundle(tmp_path / "home", clip=SMALL, edit=overwrite)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a["files"].pop("wav2vec2.onnx"), "wav2vec2.onnx is used but has no sha256"),
        (lambda a: a["files"].update({"../out": a["files"]["wav2vec2.onnx"]}), "leaves the bundle"),
        (lambda a: a["files"].update({"fusion.npz": a["files"]["wav2vec2.onnx"]}), "cannot be given"),
        (lambda a: a.update(branches=a["branches"][::-1]), "order the branches differently"),
        (
            lambda a: a.update(branches=(Branch("wav2vec2", "wav2vec2.onnx"),)),
            "order the branches differently",
        ),
        (lambda a: a.update(labels=LABELS[:7]), "fusion and labels"),
        (lambda a: a.update(labels=(*LABELS[:7], "calm")), "named twice"),
        (lambda a: a.update(clip=ClipRule(8_000, 4_000)), "do not fit the manifest"),
        (lambda a: a.update(metrics={"accuracy": float("nan")}), "JSON"),
        (
            lambda a: a.update(fusion=Fusion(np.zeros((8, 8)), np.zeros(8), ("wav2vec2",))),
            "order the branches",
        ),
    ],
)
def test_parts_that_do_not_fit_are_not_written(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        make_toy_bundle(tmp_path / "bundle", clip=SMALL, edit=edit)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_toy_bundle(tmp_path / "bundle", clip=SMALL)
    rename, calls = Path.replace, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "replace", fail_second)
    with pytest.raises(OutputError, match="disk on fire"):
        make_toy_bundle(tmp_path / "bundle", clip=SMALL, seed=1, edit=overwrite)
    assert load_bundle(tmp_path / "bundle").id == old.id


def test_an_unwritable_parent_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        make_toy_bundle(tmp_path / "file" / "bundle", clip=SMALL)


def test_a_missing_source_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"absent\.onnx"):
        make_toy_bundle(
            tmp_path / "bundle", clip=SMALL, edit=lambda a: a["files"].update({"x": tmp_path / "absent.onnx"})
        )


def test_the_directory_is_readable_by_others(toy_bundle: Bundle) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert toy_bundle.root.stat().st_mode & 0o777 == 0o777 & ~umask


def test_the_identity_stays_and_is_the_manifest_s_sha256_without_artefacts(bundle: Bundle) -> None:
    assert bundle.sha256 == hashlib.sha256((bundle.root / "manifest.json").read_bytes()).hexdigest()
    added = add_artefacts(add_artefacts(bundle, GRAPHS), {ENGINE: b"code"})
    assert added.id == load_bundle(bundle.root).id == bundle.id
    assert added.path(ENGINE).read_bytes() == b"code"
    assert (bundle.root / "manifest.json").read_text().count("precisions/") == 2


def test_what_was_added_since_the_bundle_was_opened_is_kept(bundle: Bundle) -> None:
    add_artefacts(bundle, GRAPHS)
    assert set(GRAPHS) < set(add_artefacts(bundle, {ENGINE: b"code"}).manifest.files)


def test_a_graph_of_lower_precision_is_found_and_a_missing_one_says_how_to_make_it(bundle: Bundle) -> None:
    branch = bundle.manifest.branches[0]
    assert bundle.graph(branch) == bundle.graph(branch, "fp32") == bundle.path(branch.file)
    assert add_artefacts(bundle, GRAPHS).graph(branch, "int8").read_bytes() == b"wav2vec2"
    with pytest.raises(BundleError, match=r"no fp16 graph of branch wav2vec2.*ser-export quantize .* --precision fp16"):
        bundle.graph(branch, "fp16")
    embedded = load_bundle()
    with pytest.raises(BundleError, match=r"ser-export quantize --out DIR --precision fp16"):
        embedded.graph(embedded.manifest.branches[0], "fp16")


def test_an_artefact_that_was_changed_or_slipped_in_is_refused(bundle: Bundle) -> None:
    add_artefacts(bundle, {ENGINE: b"code"})
    (bundle.root / ENGINE).write_bytes(b"evil")
    with pytest.raises(BundleError, match="is damaged"):
        load_bundle(bundle.root)
    (bundle.root / ENGINE).write_bytes(b"code")
    (bundle.root / ENGINE).with_name("spectrogram.engine").write_bytes(b"evil")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(bundle.root)


@pytest.mark.parametrize("member", ["wav2vec2.onnx", "engine", "precisions", "../engines/x", "engines/../x"])
def test_files_that_are_no_artefacts_are_refused(bundle: Bundle, member: str) -> None:
    with pytest.raises(BundleError):
        add_artefacts(bundle, {member: b"x"})


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked_for(bundle: Bundle) -> None:
    add_artefacts(bundle, {ENGINE: b"old"})
    with pytest.raises(OutputError, match="already"):
        add_artefacts(bundle, {ENGINE: b"new"})
    assert add_artefacts(bundle, {ENGINE: b"new"}, replace=True).path(ENGINE).read_bytes() == b"new"


def test_the_model_s_own_files_cannot_lie_with_artefacts(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL)
    data = json.loads((bundle.root / "manifest.json").read_text())
    for folder in ARTEFACT_PREFIXES:
        target = bundle.root / folder / "fusion.npz"
        target.parent.mkdir()
        (bundle.root / data["fusion_file"]).rename(target)
        data["files"][folder + "fusion.npz"] = data["files"].pop(data["fusion_file"])
        data["fusion_file"] = folder + "fusion.npz"
        (bundle.root / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(BundleError, match="part of the model"):
            load_bundle(bundle.root)


def test_another_model_in_its_place_is_not_added_to(bundle: Bundle, tmp_path: Path) -> None:
    def overwrite(arguments: dict[str, object]) -> None:
        arguments.update(overwrite=True, name="other")

    make_toy_bundle(bundle.root, clip=SMALL, edit=overwrite)
    with pytest.raises(BundleError, match="replaced by another"):
        add_artefacts(bundle, GRAPHS)


def test_a_certificate_may_lie_beside_the_checksums_and_survives_but_never_among_them(bundle: Bundle) -> None:
    for name in ("certificate.json", "CERTIFICATE.md"):
        (bundle.root / name).write_text("figures")
    assert (add_artefacts(bundle, GRAPHS).root / "certificate.json").read_text() == "figures"
    with pytest.raises(BundleError, match="cannot be one"):
        add_artefacts(bundle, {"certificate.json": b"{}"})
    (bundle.root / "certificate.txt").write_text("figures")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(bundle.root)


def test_a_certificate_that_links_out_of_the_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("figures")
    (bundle.root / "certificate.json").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="links out"):
        load_bundle(bundle.root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_error(bundle: Bundle) -> None:
    bundle.root.parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Copy the bundle"):
            add_artefacts(bundle, GRAPHS)
    finally:
        bundle.root.parent.chmod(0o700)


def test_a_failure_at_the_last_moment_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(writing, "put_in_place", fail)
    with pytest.raises(OutputError, match="no space"):
        add_artefacts(bundle, GRAPHS)
    assert load_bundle(bundle.root).manifest == bundle.manifest
    assert [path.name for path in bundle.root.parent.iterdir()] == [bundle.root.name]


# Ends itself, as `kill -9` would, before the n-th time that it opens, links, renames or deletes something.
MORTAL = """
import os, signal, sys
from pathlib import Path
from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.writing import add_artefacts
bundle, home, member = load_bundle(Path(sys.argv[1])), str(Path(sys.argv[1]).parent), sys.argv[2]
def add(left):
    def hook(event, arguments):
        nonlocal left
        path = str(arguments[0]) if arguments else ""
        if event == "ctypes.dlsym" or event.startswith(("open", "os.", "shutil.")) and path.startswith(home):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    add_artefacts(bundle, {member: b"new"}, replace=True)
for moment in map(int, sys.argv[3:]):
    if (child := os.fork()) == 0:
        add(moment)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print("survived")
        break
    now = load_bundle(bundle.root)
    print(now.id == bundle.id, now.path(member).read_bytes().decode(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the exchange of two directories is a call of Linux")
def test_killed_at_any_moment_the_old_or_the_new_bundle_is_there(bundle: Bundle) -> None:
    add_artefacts(bundle, {ENGINE: b"old"})
    moments = [str(moment) for moment in range(1, 400, 3)]
    command = [sys.executable, "-c", MORTAL, str(bundle.root), ENGINE, *moments]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert found.pop() == "survived"
    assert set(found) == {"True old", "True new"}


def test_without_the_exchange_the_old_is_moved_aside_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    for name in ("new", "root"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    writing.put_in_place(tmp_path / "new", tmp_path / "root", tmp_path / "aside")
    assert (tmp_path / "root" / "new").exists() and (tmp_path / "aside" / "root").exists()
    with pytest.raises(OSError):
        writing.put_in_place(tmp_path / "absent", tmp_path / "root", tmp_path / "outside")
    assert (tmp_path / "root" / "new").exists()
