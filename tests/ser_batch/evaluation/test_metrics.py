"""Metrics against values computed by hand and, where it is installed, scikit-learn."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from ser_batch.errors import InputError
from ser_batch.evaluation.metrics import (
    accuracy,
    calibration_error,
    confusion_matrix,
    evaluate,
    fit_temperature,
    macro_scores,
    recall_interval,
    reliability,
    temper,
    unweighted_average_recall,
)
from ser_batch.evaluation.statistics import bootstrap_interval

LABELS = ("calm", "happy", "sad")
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])
# By hand, rows the truth: calm 3 1 0, happy 0 2 1, sad 2 0 1; columns claim 5, 3, 2.
MATRIX = [[3, 1, 0], [0, 2, 1], [2, 0, 1]]


def one_hot(predicted: np.ndarray, classes: int = 3, winner: float = 0.8) -> np.ndarray:
    probabilities = np.full((len(predicted), classes), (1 - winner) / (classes - 1))
    probabilities[np.arange(len(predicted)), predicted] = winner
    return probabilities


def test_confusion_matrix_has_truth_in_rows() -> None:
    assert confusion_matrix(TRUTH, PREDICTED, 3).tolist() == MATRIX


def test_scores_by_hand() -> None:
    assert accuracy(TRUTH, PREDICTED) == 0.6
    macro = macro_scores(TRUTH, PREDICTED, 3)
    assert macro.precision == pytest.approx((3 / 5 + 2 / 3 + 1 / 2) / 3)
    assert macro.recall == pytest.approx((3 / 4 + 2 / 3 + 1 / 3) / 3)
    assert macro.f1 == pytest.approx((6 / 9 + 4 / 6 + 2 / 5) / 3)
    assert unweighted_average_recall(TRUTH, PREDICTED, 3) == pytest.approx(macro.recall)


@pytest.mark.parametrize(("clips", "classes"), [(40, 8), (2000, 3)])
def test_the_interval_of_ua_is_that_of_clips_drawn_again(clips: int, classes: int) -> None:
    """Few clips of many classes, of which some draws lack one, and many of few."""
    rng = np.random.default_rng(0)
    truth = rng.choice(classes, clips, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    predicted = np.where(rng.random(clips) < 0.6, truth, rng.integers(classes, size=clips))
    drawn = bootstrap_interval(
        lambda t, p: unweighted_average_recall(t, p, classes), truth, predicted, resamples=4000, seed=1
    )
    matrix = confusion_matrix(truth, predicted, classes)
    found = recall_interval(matrix)
    assert found == pytest.approx(drawn, abs=0.1 * (drawn.high - drawn.low))
    assert recall_interval(matrix, seed=1) == pytest.approx(found, abs=0.1 * (drawn.high - drawn.low))
    assert recall_interval(matrix, seed=1) != found == recall_interval(matrix)
    assert recall_interval(np.diag(matrix.sum(axis=1))) == (1, 1)


def test_a_class_that_is_only_claimed_counts_in_macro_but_not_in_ua() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert macro_scores(truth, predicted, 4).recall == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert unweighted_average_recall(truth, predicted, 4) == pytest.approx((1 / 2 + 1) / 2)


def test_scores_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for classes in (2, 8):
        truth = rng.integers(classes, size=150)
        predicted = np.where(rng.random(150) < 0.7, truth, rng.integers(classes, size=150))
        evaluation = evaluate(truth, one_hot(predicted, classes), [str(i) for i in range(classes)])
        precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, predicted)
        assert evaluation.accuracy == metrics.accuracy_score(truth, predicted)
        assert evaluation.ua == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
        macro = metrics.precision_recall_fscore_support(truth, predicted, average="macro")[:3]
        assert (evaluation.macro.precision, evaluation.macro.recall, evaluation.macro.f1) == pytest.approx(macro)
        assert np.array(evaluation.confusion).tolist() == metrics.confusion_matrix(truth, predicted).tolist()
        ours = [(c.precision, c.recall, c.f1, c.support) for c in evaluation.classes]
        np.testing.assert_allclose(ours, np.stack([precision, recall, f1, support], axis=1))


def test_evaluation_by_hand() -> None:
    evaluation = evaluate(TRUTH, one_hot(PREDICTED), LABELS)
    assert (evaluation.clips, evaluation.correct, evaluation.accuracy) == (10, 6, 0.6)
    assert evaluation.accuracy_interval == pytest.approx((0.3127, 0.8318), abs=1e-4)  # Wilson of 6 / 10
    assert evaluation.ua_interval.low < evaluation.ua < evaluation.ua_interval.high
    assert evaluation.ece == pytest.approx(0.8 - 0.6)
    assert [c.support for c in evaluation.classes] == [4, 3, 3]
    assert evaluation.classes[2].label == "sad" and evaluation.classes[2].precision == 0.5


def test_the_dictionary_is_json_and_loses_nothing() -> None:
    plain = evaluate(TRUTH, one_hot(PREDICTED).astype(np.float32), LABELS).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["confusion"] == MATRIX
    assert plain["labels"] == list(LABELS)
    assert plain["macro"]["f1"] == pytest.approx((6 / 9 + 4 / 6 + 2 / 5) / 3)
    assert sum(b["clips"] for b in plain["reliability"]) == 10
    assert {c["label"]: c["support"] for c in plain["classes"]} == {"calm": 4, "happy": 3, "sad": 3}


def test_an_absent_and_never_claimed_class_is_listed_with_support_0() -> None:
    evaluation = evaluate(np.array([0, 1]), one_hot(np.array([0, 1])), LABELS)
    assert evaluation.macro.f1 == evaluation.ua == evaluation.accuracy == 1.0
    assert evaluation.classes[2].support == 0


def test_the_same_seed_gives_the_same_interval() -> None:
    first, again, other = (evaluate(TRUTH, one_hot(PREDICTED), LABELS, seed=s).ua_interval for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("truth", "probabilities"),
    [
        (np.array([], dtype=int), np.zeros((0, 3))),
        (np.array([0]), np.ones((1, 2)) / 2),
        (np.array([0, 1]), np.ones((1, 3)) / 3),
        (np.array([3]), np.ones((1, 3)) / 3),
        (np.array([-1]), np.ones((1, 3)) / 3),
        (np.array([0.0]), np.ones((1, 3)) / 3),
        (np.array([0]), np.array([[0.5, np.nan, 0.5]])),
        (np.array([0]), np.array([[2.0, 1.0, -1.0]])),
    ],
)
def test_what_cannot_be_evaluated_is_refused(truth: np.ndarray, probabilities: np.ndarray) -> None:
    with pytest.raises(InputError):
        evaluate(truth, probabilities, LABELS)


def test_fifteen_bins_of_equal_width_cover_the_interval() -> None:
    bins = reliability(np.array([True]), np.array([0.5]))
    assert len(bins) == 15 and bins[0].low == 0 and bins[-1].high == 1
    assert all(b.high - b.low == pytest.approx(1 / 15) for b in bins)
    assert all(a.high == b.low for a, b in pairwise(bins))


def test_bins_are_open_below_and_closed_above() -> None:
    confidence = np.array([0.0, 0.25, 0.2500001, 0.5, 1.0])
    bins = reliability(np.ones(5, dtype=bool), confidence, bins=4)
    assert [b.clips for b in bins] == [2, 2, 0, 1]


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.95, 0.85, 0.8, 0.3, 0.35])
    correct = np.array([True, True, False, True, True, False])
    bins = reliability(correct, confidence, bins=2)
    assert (bins[0].clips, bins[0].accuracy, bins[0].confidence) == (2, 0.5, pytest.approx(0.325))
    assert (bins[1].clips, bins[1].accuracy, bins[1].confidence) == (4, 0.75, pytest.approx(0.875))
    assert calibration_error(bins) == pytest.approx((2 * 0.175 + 4 * 0.125) / 6)


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 50_000)
    honest = rng.random(50_000) < confidence
    assert calibration_error(reliability(honest, confidence)) < 0.02
    assert calibration_error(reliability(honest, np.ones(50_000))) == pytest.approx(0.35, abs=0.01)


def test_a_temperature_undoes_overconfidence() -> None:
    """Labels drawn from p, predictions sharpened to p³: the likeliest temperature is 3."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.full(4, 0.7), 20_000)
    truth = (honest.cumsum(axis=1) > rng.random((len(honest), 1))).argmax(axis=1)
    sharp = temper(honest, 1 / 3)
    temperature = fit_temperature(truth, sharp)
    assert temperature == pytest.approx(3, rel=0.05)
    np.testing.assert_allclose(temper(sharp, 3), honest, atol=1e-6)

    def error(probabilities: np.ndarray) -> float:
        return calibration_error(reliability(probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)))

    assert error(temper(sharp, temperature)) < 0.02 < error(sharp)


def test_tempering_keeps_the_order_and_survives_zeros() -> None:
    rows = np.array([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    soft = temper(rows, 20)
    assert np.isfinite(soft).all() and soft.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    assert 0.05 <= fit_temperature(np.array([0, 2]), rows) <= 20
