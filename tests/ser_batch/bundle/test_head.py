"""The matrix of a head: the formula, what it refuses, and that it survives its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.bundle.files import write_arrays
from ser_batch.bundle.fusion import Fusion, save_fusion, softmax
from ser_batch.bundle.head import Head, load_answer, save_answer
from ser_batch.errors import BundleError
from support.bundles import reseal
from support.toy import toy_fusion

RNG = np.random.default_rng(0)
HEAD = Head(RNG.normal(size=(3, 5 + 2 * 4)), RNG.normal(size=3), ("x", "y"), 5)


def test_it_weighs_embeddings_and_log_probabilities() -> None:
    embedding = RNG.normal(size=(6, 5)).astype(np.float32)
    rows = {name: RNG.dirichlet(np.ones(4), 6).astype(np.float32) for name in ("x", "y")}
    rows["y"][0] = (1, 0, 0, 0)  # a softmax may give exactly that
    logits = embedding @ HEAD.weight[:, :5].T + HEAD.bias
    logits += np.log(np.maximum(rows["x"], 1e-3)) @ HEAD.weight[:, 5:9].T
    logits += np.log(np.maximum(rows["y"], 1e-3)) @ HEAD.weight[:, 9:].T
    found = HEAD(rows, embedding)
    assert (found.dtype, HEAD.classes, HEAD.inputs) == (np.float32, 3, 4)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-6)


def test_it_refuses_other_inputs() -> None:
    embedding, rows = np.zeros((2, 5), np.float32), {"x": np.full((2, 4), 0.25), "y": np.full((2, 4), 0.25)}
    with pytest.raises(BundleError, match=r"other inputs; got \['x', 'y'\]; expected \['x', 'y', 'embedding'\]"):
        HEAD(rows)
    with pytest.raises(BundleError, match="other inputs"):
        HEAD({"x": rows["x"]}, embedding)
    with pytest.raises(BundleError, match="do not fit the head"):
        HEAD(rows, embedding[:, :4])


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    for changes in ({"embedding": 6}, {"embedding": 0}, {"bias": np.zeros(4)}, {"weight": np.zeros(3)}):
        with pytest.raises(BundleError, match="do not fit its inputs"):
            replace(HEAD, **changes)
    with pytest.raises(BundleError, match="not finite"):
        replace(HEAD, bias=np.array([0, np.nan, 0]))
    with pytest.raises(BundleError, match="distinct names"):
        replace(HEAD, branches=("x", "x"))


def test_it_survives_its_file_and_a_fusion_does_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "fusion.npz"
    save_answer(HEAD, path)
    back = load_answer(path)
    assert isinstance(back, Head) and (back.branches, back.embedding) == (HEAD.branches, 5)
    np.testing.assert_array_equal(back.weight, HEAD.weight)
    save_answer(toy_fusion(), path)
    before = path.read_bytes()
    save_fusion(toy_fusion(), path)
    assert isinstance(load_answer(path), Fusion) and path.read_bytes() == before
    arrays = {"weight": HEAD.weight, "bias": HEAD.bias, "branches": np.array(["x", "y"])}
    write_arrays(path, arrays | {"embedding": np.array(5.0)})
    with pytest.raises(BundleError, match="does not hold a head"):
        load_answer(path)


def test_a_head_for_another_embedding_is_refused(tmp_path: Path, head_bundle: Bundle) -> None:
    from shutil import copytree

    copy = Path(copytree(head_bundle.root, tmp_path / "copy"))
    head = head_bundle.fusion
    assert isinstance(head, Head)
    save_answer(replace(head, weight=head.weight[:, 1:], embedding=7), copy / "fusion.npz")
    reseal(copy)
    with pytest.raises(BundleError, match="the head is for another embedding; got 8; expected 7"):
        load_bundle(copy)
