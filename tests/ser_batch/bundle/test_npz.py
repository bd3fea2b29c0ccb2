from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle.npz import read_arrays, write_arrays
from ser_batch.errors import BundleError

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
