"""What stays in float32: the front-end, the end, and what sums squares."""

from __future__ import annotations

import pytest

from export.kept import FRAGILE, kept_nodes
from ser_batch.errors import ExportError
from support.graphs import chain
from support.toy import LABELS, toy_graph, toy_weights


def test_front_end_last_product_and_softmax_are_kept() -> None:
    model = chain("Abs", "MatMul", "Relu", "MatMul", "Identity", "Softmax")
    assert kept_nodes(model) == {"n0", "n3", "n4", "n5"}


def test_what_overflows_is_kept_wherever_it_is() -> None:
    fragile = ("Softmax", "Sqrt", "Exp", "Reciprocal")
    assert set(fragile) < FRAGILE
    assert kept_nodes(chain("Abs", "Relu", *fragile, "Relu", "MatMul", "Softmax")) == {
        *("n0", "n2", "n3", "n4", "n5"),
        *("n7", "n8"),
    }


def test_a_graph_that_does_not_say_where_its_front_end_ends_is_refused() -> None:
    for frontend in (None, "nowhere"):
        with pytest.raises(ExportError, match=r"does not say where its front-end ends.*Export the bundle again"):
            kept_nodes(chain("Abs", "MatMul", "Softmax", frontend=frontend))


def test_a_graph_without_products_or_names_is_refused() -> None:
    with pytest.raises(ExportError, match="has no product"):
        kept_nodes(chain("Abs", "Relu", "Softmax"))
    with pytest.raises(ExportError, match="have no names"):
        kept_nodes(toy_graph(toy_weights("wav2vec2", len(LABELS)), labels=LABELS))
