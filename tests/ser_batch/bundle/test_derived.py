"""Derived files: added in one step, inside the checksums, outside the identity."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ser_batch.bundle import derived, placing
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.derived import PREFIXES, add_derived
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError, OutputError
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)
ENGINE = "engines/trt-rtx-fp32-ampere/wav2vec2.engine"
GRAPHS = {f"precisions/int8/{name}.onnx": name.encode() for name in ("wav2vec2", "spectrogram")}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=SMALL)


def test_the_identity_stays_and_is_the_manifest_s_sha256_without_derived_files(bundle: Bundle) -> None:
    assert bundle.sha256 == hashlib.sha256((bundle.root / "manifest.json").read_bytes()).hexdigest()
    added = add_derived(add_derived(bundle, GRAPHS), {ENGINE: b"code"})
    assert added.id == load_bundle(bundle.root).id == bundle.id
    assert added.path(ENGINE).read_bytes() == b"code"
    assert (bundle.root / "manifest.json").read_text().count("precisions/") == 2


def test_the_default_bundle_keeps_its_id() -> None:
    assert load_bundle().id == "ravdess-compact-3e3bcd4cb327"


def test_what_was_added_since_the_bundle_was_opened_is_kept(bundle: Bundle) -> None:
    add_derived(bundle, GRAPHS)
    assert set(GRAPHS) < set(add_derived(bundle, {ENGINE: b"code"}).manifest.files)


def test_a_graph_of_lower_precision_is_found_and_a_missing_one_says_how_to_make_it(bundle: Bundle) -> None:
    branch = bundle.manifest.branches[0]
    assert bundle.graph(branch) == bundle.graph(branch, "fp32") == bundle.path(branch.file)
    assert add_derived(bundle, GRAPHS).graph(branch, "int8").read_bytes() == b"wav2vec2"
    with pytest.raises(BundleError, match=r"no fp16 graph of branch wav2vec2.*ser-export quantize .* --precision fp16"):
        bundle.graph(branch, "fp16")


def test_a_derived_file_that_was_changed_or_slipped_in_is_refused(bundle: Bundle) -> None:
    add_derived(bundle, {ENGINE: b"code"})
    (bundle.root / ENGINE).write_bytes(b"evil")
    with pytest.raises(BundleError, match="is damaged"):
        load_bundle(bundle.root)
    (bundle.root / ENGINE).write_bytes(b"code")
    (bundle.root / ENGINE).with_name("spectrogram.engine").write_bytes(b"evil")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(bundle.root)


@pytest.mark.parametrize("member", ["wav2vec2.onnx", "engine", "precisions", "../engines/x", "engines/../x"])
def test_files_that_are_not_derived_are_refused(bundle: Bundle, member: str) -> None:
    with pytest.raises(BundleError):
        add_derived(bundle, {member: b"x"})


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked_for(bundle: Bundle) -> None:
    add_derived(bundle, {ENGINE: b"old"})
    with pytest.raises(OutputError, match="already"):
        add_derived(bundle, {ENGINE: b"new"})
    assert add_derived(bundle, {ENGINE: b"new"}, replace=True).path(ENGINE).read_bytes() == b"new"


def test_the_model_s_own_files_cannot_lie_with_derived_ones(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "bundle", clip=SMALL)
    data = json.loads((bundle.root / "manifest.json").read_text())
    for folder in PREFIXES:
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
        add_derived(bundle, GRAPHS)


def test_evidence_may_lie_beside_the_checksums_and_survives_but_never_among_them(bundle: Bundle) -> None:
    for name in ("certificate.json", "CERTIFICATE.md"):
        (bundle.root / name).write_text("figures")
    assert (add_derived(bundle, GRAPHS).root / "certificate.json").read_text() == "figures"
    with pytest.raises(BundleError, match="cannot be one"):
        add_derived(bundle, {"certificate.json": b"{}"})
    (bundle.root / "certificate.txt").write_text("figures")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(bundle.root)


def test_evidence_that_links_out_of_the_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("figures")
    (bundle.root / "certificate.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="links out"):
        load_bundle(bundle.root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_error(bundle: Bundle) -> None:
    bundle.root.parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Copy the bundle"):
            add_derived(bundle, GRAPHS)
    finally:
        bundle.root.parent.chmod(0o700)


def test_a_failure_at_the_last_moment_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(derived, "put_in_place", fail)
    with pytest.raises(OutputError, match="no space"):
        add_derived(bundle, GRAPHS)
    assert load_bundle(bundle.root).manifest == bundle.manifest
    assert [path.name for path in bundle.root.parent.iterdir()] == [bundle.root.name]


# Ends itself, as `kill -9` would, before the n-th time that it opens, links, renames or deletes something.
MORTAL = """
import os, signal, sys
from pathlib import Path
from ser_batch.bundle.bundle import load_bundle
from ser_batch.bundle.derived import add_derived
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
    add_derived(bundle, {member: b"new"}, replace=True)
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
    add_derived(bundle, {ENGINE: b"old"})
    moments = [str(moment) for moment in range(1, 400, 3)]
    command = [sys.executable, "-c", MORTAL, str(bundle.root), ENGINE, *moments]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert found.pop() == "survived"
    assert set(found) == {"True old", "True new"}


def test_without_the_exchange_the_old_steps_aside_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_exchange", lambda first, second: False)
    for name in ("new", "root"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    placing.put_in_place(tmp_path / "new", tmp_path / "root", tmp_path / "aside")
    assert (tmp_path / "root" / "new").exists() and (tmp_path / "aside" / "root").exists()
    with pytest.raises(OSError):
        placing.put_in_place(tmp_path / "absent", tmp_path / "root", tmp_path / "elsewhere")
    assert (tmp_path / "root" / "new").exists()
