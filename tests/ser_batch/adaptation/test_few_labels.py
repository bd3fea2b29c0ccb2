"""Temperature and bias from a few rows: found where they are there, left alone where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from ser_batch.adaptation.few_labels import BOTH, FEWEST_EACH, NOTHING, TEMPERATURE, correction
from ser_batch.errors import InputError

LABELS = 4
EQUAL = np.full(LABELS, 1 / LABELS)


def drawn(count: int, temperature: float, bias: list[float], shares: np.ndarray = EQUAL, seed: int = 0):
    """Logits z and labels that are distributed as softmax(z / T + bias + log shares)."""
    rng = np.random.default_rng(seed)
    truth_of_clip = rng.choice(LABELS, size=count, p=shares)
    # Gaussian classes of one width: their posterior is a softmax that is linear in x.
    x = rng.normal(size=(count, LABELS)) + 1.5 * np.eye(LABELS)[truth_of_clip]
    logits = 1.5 * x
    return temperature * (logits - np.array(bias)), truth_of_clip


def speakers(count: int) -> list[str]:
    return [f"s{row % 10}" for row in range(count)]


def test_a_wrong_temperature_is_found():
    z, truth = drawn(300, 4.0, [0, 0, 0, 0])
    found = correction(z, truth, EQUAL, speakers(300))
    assert found.kept in (TEMPERATURE, BOTH) and 3 < found.temperature < 5
    assert found.loss_after < found.loss_before - 0.3


def test_a_wrong_bias_is_found():
    z, truth = drawn(300, 1.0, [2.0, 0, 0, -2.0])
    found = correction(z, truth, EQUAL, speakers(300))
    assert found.kept == BOTH and found.bias[0] - found.bias[3] > 2.5


def test_a_right_answer_is_left_alone():
    kept = [correction(*drawn(60, 1.0, [0, 0, 0, 0], seed=seed), EQUAL, speakers(60)).kept for seed in range(10)]
    assert kept.count(NOTHING) >= 7


@pytest.mark.parametrize("seed", [28, 42])
def test_a_bias_that_lowers_the_loss_and_not_the_errors_of_each_label_is_not_used(seed: int):
    # Three quarters are the first label, and nothing is wrong: by the loss alone, these draws would get a bias.
    shares = np.array([0.76, 0.08, 0.08, 0.08])
    z, truth = drawn(60, 1.0, [0, 0, 0, 0], shares, seed)
    found = correction(z, truth, shares, speakers(60))
    assert found.kept != BOTH and found.bias == (0, 0, 0, 0)


def test_what_is_common_is_no_bias():
    # Three quarters are the first label: their share says so, and no bias must say it again.
    shares = np.array([0.76, 0.08, 0.08, 0.08])
    z, truth = drawn(400, 1.0, [0, 0, 0, 0], shares)
    found = correction(z, truth, shares, speakers(400))
    assert abs(found.bias[0]) < 0.3
    assert found.kept != BOTH or found.loss_after < found.loss_before


def test_no_bias_is_fitted_where_a_label_has_too_few_rows():
    z, truth = drawn(300, 1.0, [2.0, 0, 0, -2.0])
    for count in (FEWEST_EACH - 1, FEWEST_EACH):
        rows = np.r_[np.flatnonzero(truth != 3), np.flatnonzero(truth == 3)[:count]]
        found = correction(z[rows], truth[rows], EQUAL, speakers(len(rows)))
        assert found.rarest == count and (found.kept == BOTH) == (count == FEWEST_EACH)


def test_a_label_without_a_share_has_no_bias_and_no_row():
    shares = np.array([0.5, 0.0, 0.3, 0.2])
    z, truth = drawn(100, 3.0, [0, 0, 0, 0], shares)
    assert correction(np.where(shares > 0, z, -np.inf), truth, shares, speakers(100)).bias[1] == 0
    with pytest.raises(InputError, match="does not occur; got 1 rows"):
        correction(z, np.r_[1, truth[1:]], shares, speakers(100))


def test_speakers_are_kept_apart():
    # Labels that belong to speakers teach nothing about the next speaker; rows alone would seem to.
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(LABELS), 15)
    z = 0.1 * rng.normal(size=(60, LABELS))
    apart = correction(z, truth, EQUAL, [f"s{label}" for label in truth])
    assert apart.kept == NOTHING and apart.loss_after == apart.loss_before


@pytest.mark.parametrize(("count", "voices", "message"), [(10, 5, "too few labelled rows"), (40, 1, "one speaker")])
def test_too_little_is_refused(count, voices, message):
    z, truth = drawn(count, 1.0, [0, 0, 0, 0])
    with pytest.raises(InputError, match=message):
        correction(z, truth, EQUAL, [f"s{row % voices}" for row in range(count)])
