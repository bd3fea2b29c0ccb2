from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.writing import add_artefacts
from ser_batch.clips import ClipRule
from ser_batch.engines.tensorrt.sidecar import (
    SIDECAR_FILE,
    Here,
    bundle_at_home,
    engines_home,
    misfits,
    read_sidecars,
    rebuild_command,
    with_engines,
)
from ser_batch.errors import BundleError
from support.bundles import sealed, sidecar_of
from support.toy import make_toy_bundle

HERE = Here("trt-rtx", "1.7.1.116", "NVIDIA L4", "8.9")
SMALL = ClipRule(sample_rate=8_000, samples=800)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_toy_bundle(tmp_path / "bundle", clip=ClipRule(sample_rate=8_000, samples=800))


def test_what_is_written_is_read(bundle: Bundle) -> None:
    first = sidecar_of(bundle)
    second = dataclasses.replace(first, precision="fp16", gpu="NVIDIA L4", driver="13.0")
    assert read_sidecars(bundle) == ()
    assert read_sidecars(sealed(sealed(bundle, second), first)) == (second, first)


def test_engines_that_belong_here_have_no_misfit(bundle: Bundle) -> None:
    assert list(misfits(sidecar_of(bundle), sealed(bundle, sidecar_of(bundle)), HERE)) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"runtime_version": "1.6.0"}, "the runtime is another one"),
        ({"runtime": "trt"}, "the runtime is another one"),
        ({"compute_capability": "9.0"}, "the GPU is another one"),
    ],
)
def test_another_machine_is_a_misfit(bundle: Bundle, change: dict[str, str], reason: str) -> None:
    here = dataclasses.replace(HERE, **change)
    assert list(misfits(sidecar_of(bundle), sealed(bundle, sidecar_of(bundle)), here)) == [reason]


def test_another_model_is_a_misfit(bundle: Bundle) -> None:
    made = sealed(bundle, sidecar_of(bundle))
    (reason,) = misfits(sidecar_of(bundle, bundle_sha256="e" * 64), made, HERE)
    assert reason == "they were built for another bundle (eeeeeeeeeeee)"
    (reason,) = misfits(sidecar_of(bundle, onnx_sha256={"wav2vec2": made.manifest.files["wav2vec2.onnx"]}), made, HERE)
    assert reason == "branch spectrogram was built from another graph than spectrogram.onnx"


def test_a_branch_without_engine_is_a_misfit(bundle: Bundle) -> None:
    sidecar = sidecar_of(bundle)
    made = add_artefacts(
        bundle, {sidecar.folder + SIDECAR_FILE: sidecar.to_json(), sidecar.engine("wav2vec2"): b"code"}
    )
    assert list(misfits(sidecar, made, HERE)) == ["branch spectrogram has no engine"]


def test_no_sidecar_is_read_that_is_no_json(bundle: Bundle) -> None:
    made = add_artefacts(bundle, {"engines/x/" + SIDECAR_FILE: b"{"})
    with pytest.raises(BundleError, match=r"engines/x/sidecar.json is not valid JSON; got .*Build the engines"):
        read_sidecars(made)


def test_the_command_keeps_the_batch_sizes(bundle: Bundle) -> None:
    command = rebuild_command(bundle, "fp32", sidecar_of(bundle))
    assert command == f"ser-export trt {bundle.root} --precision fp32 --batch 1,8 --replace"


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = make_toy_bundle(tmp_path / "embedded", clip=SMALL)
    monkeypatch.setattr("ser_batch.bundle.bundle.default_root", lambda: bundle.root)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return load_bundle()


def test_any_other_bundle_holds_its_own(toy_bundle: Bundle) -> None:
    assert engines_home(toy_bundle) == toy_bundle.root
    assert bundle_at_home(toy_bundle) is toy_bundle


def test_the_embedded_one_has_a_copy_named_after_its_id(embedded: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "data" / "ser-batch" / "bundles" / embedded.id
    assert engines_home(embedded) == home
    assert bundle_at_home(embedded) is None and with_engines(embedded) is embedded
    shutil.copytree(embedded.root, home)
    copy = sealed(load_bundle(home), sidecar_of(embedded))
    found = with_engines(embedded)
    assert (found.root, found.manifest.files) == (home, copy.manifest.files)
    assert found.sha256 == embedded.sha256


def test_a_copy_that_is_damaged_or_of_another_model_is_refused(embedded: Bundle, tmp_path: Path) -> None:
    home = engines_home(embedded)
    shutil.copytree(make_toy_bundle(tmp_path / "other", clip=SMALL, seed=1).root, home)
    with pytest.raises(BundleError, match=r"is a copy of another bundle; got .*Delete .*ser-export trt makes it again"):
        bundle_at_home(embedded)
    (home / "fusion.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"fusion.npz.*Delete .*ser-export trt makes it again"):
        bundle_at_home(embedded)
