from __future__ import annotations

import pytest

from ser_batch.output.rows import RowIndex, Run


@pytest.mark.parametrize("given", [(0, 0, 0), (7, 0, 9), (0, 0, 2**64 - 1), (0, 5, 0)])
def test_what_was_handed_through_is_known_of_each_whether_or_not_there_was_anything(given: tuple[int, ...]) -> None:
    index = RowIndex(Run(f"{n}.wav", n, 1, (n, n), False, each) for n, each in enumerate(given))
    found = [index.find(f"{n}.wav") for n in range(len(given))]
    assert [each.given for each in found if each is not None] == list(given)
    assert index.find("absent.wav") is None


def test_the_latest_run_of_a_recording_is_found() -> None:
    index = RowIndex(Run("a.wav", n, 1, (n, n), False, n) for n in range(3))
    found = index.find("a.wav")
    assert found is not None and (found.number, found.given) == (2, 2)
    assert index.latest().tolist() == [False, False, True]
