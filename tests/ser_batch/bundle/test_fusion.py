from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle.files import write_arrays
from ser_batch.bundle.fusion import Fusion, load_fusion, save_fusion, softmax
from ser_batch.errors import BundleError


def random_rows(rng: np.random.Generator, batch: int, classes: int) -> np.ndarray:
    return rng.dirichlet(np.ones(classes), batch).astype(np.float32)


def test_it_is_softmax_of_w_times_the_stacked_rows_plus_b() -> None:
    # Two classes, two branches, done by hand: logit_0 = 2·0.25 - 1·0.5 + 0.1, logit_1 = 0.
    fusion = Fusion(np.array([[2.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), np.array([0.1, 0.0]), ("x", "y"))
    fused = fusion({"x": np.array([[0.25, 0.75]]), "y": np.array([[0.5, 0.5]])})
    first = 1 / (1 + np.exp(-0.1))
    np.testing.assert_allclose(fused, [[first, 1 - first]], atol=1e-7)
    assert fused.dtype == np.float32


def test_the_order_is_the_fusions_not_the_mappings() -> None:
    rng = np.random.default_rng(0)
    fusion = Fusion(rng.normal(size=(3, 6)), rng.normal(size=3), ("x", "y"))
    x, y = random_rows(rng, 4, 3), random_rows(rng, 4, 3)
    np.testing.assert_array_equal(fusion({"x": x, "y": y}), fusion({"y": y, "x": x}))
    assert not np.allclose(fusion({"x": x, "y": y}), fusion({"x": y, "y": x}))


def test_a_row_alone_fuses_as_in_a_batch() -> None:
    rng = np.random.default_rng(1)
    fusion = Fusion(rng.normal(size=(8, 16)), rng.normal(size=8), ("x", "y"))
    rows = {name: random_rows(rng, 37, 8) for name in ("x", "y")}
    whole = fusion(rows)
    for index in range(37):
        alone = fusion({name: row[index : index + 1] for name, row in rows.items()})
        np.testing.assert_allclose(alone[0], whole[index], rtol=0, atol=1e-7)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)


def test_an_empty_batch_stays_empty() -> None:
    fusion = Fusion(np.zeros((3, 3)), np.zeros(3), ("x",))
    assert fusion({"x": np.empty((0, 3), np.float32)}).shape == (0, 3)


def test_softmax_does_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]])


def test_it_survives_being_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    fusion = Fusion(rng.normal(size=(8, 16)), rng.normal(size=8), ("wav2vec2", "spectrogram"))
    save_fusion(fusion, tmp_path / "fusion.npz")
    back = load_fusion(tmp_path / "fusion.npz")
    np.testing.assert_array_equal(back.weight, fusion.weight)
    np.testing.assert_array_equal(back.bias, fusion.bias)
    assert back.branches == fusion.branches


@pytest.mark.parametrize(
    ("weight", "bias", "branches", "message"),
    [
        ((3, 5), (3,), ("x", "y"), "do not fit"),
        ((3, 3), (3,), ("x", "y"), "do not fit"),
        ((6, 3), (3,), ("x", "y"), "do not fit"),
        ((3, 6), (3, 1), ("x", "y"), "do not fit"),
        ((0, 0), (0,), ("x",), "do not fit"),
        ((3, 6), (3,), ("x", "x"), "distinct"),
        ((3, 0), (3,), (), "distinct"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    weight: tuple[int, ...], bias: tuple[int, ...], branches: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        Fusion(np.zeros(weight), np.zeros(bias), branches)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(BundleError, match="not finite"):
        Fusion(np.full((2, 2), bad), np.zeros(2), ("x",))


def test_other_branches_or_shapes_are_refused() -> None:
    fusion = Fusion(np.zeros((2, 4)), np.zeros(2), ("x", "y"))
    rows = np.full((3, 2), 0.5)
    with pytest.raises(BundleError, match="other branches"):
        fusion({"x": rows})
    with pytest.raises(BundleError, match="other branches"):
        fusion({"x": rows, "y": rows, "z": rows})
    with pytest.raises(BundleError, match="do not fit"):
        fusion({"x": rows, "y": rows[:2]})
    with pytest.raises(BundleError, match="do not fit"):
        fusion({"x": rows, "y": np.full((3, 3), 0.3)})


def test_a_file_of_other_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fusion.npz"
    write_arrays(path, {"weight": np.zeros((2, 2), int), "bias": np.zeros(2), "branches": np.array(["x"])})
    with pytest.raises(BundleError, match="does not hold a fusion"):
        load_fusion(path)
    write_arrays(path, {"weight": np.zeros((2, 2)), "bias": np.zeros(2), "branches": np.array("x")})
    with pytest.raises(BundleError, match="does not hold a fusion"):
        load_fusion(path)
