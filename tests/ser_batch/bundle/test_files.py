from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle.files import check_inside, members, read_arrays, sha256_of, verify_files, write_arrays
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


NAMES = frozenset({"a", "b"})


def test_arrays_come_back_unchanged(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.array(["x", "yy"])}
    write_arrays(tmp_path / "file.npz", arrays)
    back = read_arrays(tmp_path / "file.npz", NAMES)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_arrays(tmp_path / name, {"a": np.ones(3), "b": np.zeros(2)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("a", "c")])
def test_other_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_arrays(tmp_path / "file.npz", {name: np.zeros(1) for name in names})
    with pytest.raises(BundleError, match="other arrays"):
        read_arrays(tmp_path / "file.npz", NAMES)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", a=np.array([{"an": "object"}], dtype=object), b=np.zeros(1))
    with pytest.raises(BundleError, match="not a readable"):
        read_arrays(tmp_path / "file.npz", NAMES)


def test_a_lone_npy_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(BundleError, match="not a readable"):
        read_arrays(tmp_path / "file.npz", NAMES)


@pytest.mark.parametrize("keep", [0, 1, 30, 200])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "file.npz"
    write_arrays(path, {"a": np.arange(1000.0), "b": np.zeros(2)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match="not a readable"):
        read_arrays(path, NAMES)


def test_flipped_bytes_are_refused_or_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    arrays = {"a": np.arange(100.0), "b": np.zeros(2)}
    write_arrays(path, arrays)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            back = read_arrays(path, NAMES)
        except BundleError:
            refused += 1
        else:
            assert all(np.array_equal(back[name], arrays[name]) for name in NAMES)
    assert refused > 0


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a readable"):
        read_arrays(tmp_path / "none.npz", NAMES)
