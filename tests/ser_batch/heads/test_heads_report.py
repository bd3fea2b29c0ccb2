"""What `ser-batch head` advises, by what cross-validation found."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.bundle.head import Head
from ser_batch.evaluation.metrics import evaluate
from ser_batch.evaluation.statistics import Interval
from ser_batch.heads.head import FittedHead, Share
from ser_batch.heads.report import format_head

LABELS = ("calls", "waits")


def fitted(right: int, own: float | None) -> FittedHead:
    """A head that is right in `right` of 100 rows of each label, beside a base whose UA is `own`."""
    truth = np.repeat([0, 1], 100)
    said = np.where(np.tile(np.arange(100), 2) < right, truth, 1 - truth)
    return FittedHead(
        head=Head(np.zeros((2, 3)), np.zeros(2), ("a",), 1),
        labels=LABELS,
        evaluation=evaluate(truth, np.eye(2)[said], LABELS),
        counts=(100, 100),
        folds=5,
        by="speaker",
        groups=9,
        penalty=0.1,
        majority=0.5,
        default=None if own is None else Share(own, Interval(own, own)),
        unsaid=(),
        left_out={},
    )


@pytest.mark.parametrize(
    ("right", "own", "advice"),
    [
        (80, 0.81, "use the base"),
        (80, 0.80, "use the base"),
        (80, 0.78, "not clearly better"),
        (80, 0.60, None),
        (80, None, None),
        (51, None, "not clearly better"),
    ],
)
def test_the_head_the_base_or_more_recordings(right: int, own: float | None, advice: str | None, toy_bundle: Bundle):
    shown = format_head(fitted(right, own), toy_bundle)
    assert f"{right}.00 [" in shown
    assert {each for each in ("use the base", "not clearly better") if each in shown} == ({advice} - {None})
