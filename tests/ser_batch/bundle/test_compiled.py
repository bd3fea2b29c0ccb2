"""Where the engines of a bundle lie: in itself, or in the embedded one's copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.compiled import bundle_at_home, engines_home, with_engines
from ser_batch.clips import ClipRule
from ser_batch.errors import BundleError
from support.bundles import sealed, sidecar_of
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=800)


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
