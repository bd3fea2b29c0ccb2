from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ser_batch.bundle.integrity import check_inside, members, sha256_of, verify_files
from ser_batch.errors import BundleError


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # The first test vector of FIPS 180-4.
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_members_are_files_and_links_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert members(tmp_path) == {"a/b/file", "link", "dangling"}


def test_exactly_the_listed_files_pass(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    (tmp_path / "x").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    verify_files(tmp_path, {"x": digest}, "m")
    with pytest.raises(BundleError, match="not listed"):
        verify_files(tmp_path, {}, "m")
    with pytest.raises(BundleError, match="damaged"):
        verify_files(tmp_path, {"x": digest[::-1]}, "m")
    with pytest.raises(BundleError, match="y cannot be read"):
        verify_files(tmp_path, {"x": digest, "y": digest}, "m")


def test_a_link_inside_passes_and_one_to_the_outside_does_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "x").touch()
    (root / "inner").symlink_to("x")
    (root / "outer").symlink_to("../y")
    check_inside(root, "inner")
    with pytest.raises(BundleError, match="links out"):
        check_inside(root, "outer")
    (root / "circle").symlink_to("circle")
    for member in ("circle", 300 * "x"):
        with pytest.raises(BundleError, match="cannot be followed"):
            check_inside(root, member)
    (root / "folder").mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        check_inside(root, "folder")
