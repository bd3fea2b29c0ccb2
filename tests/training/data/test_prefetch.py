from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from training.data.prefetch import ahead, run_ahead


def test_what_is_made_out_of_order_is_given_out_in_order() -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(ahead(make, range(20), workers=4)) == list(range(20))
    assert not list(ahead(make, [], workers=4))


def test_the_next_is_made_while_the_last_is_used_and_no_more_than_asked() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 2:
            third.set()
        return number

    found = ahead(make, range(100), workers=2)
    assert next(found) == 0 and third.wait(10) and len(made) <= 3
    found.close()  # type: ignore[attr-defined]
    assert len(made) <= 3


def test_an_error_comes_where_it_belongs() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    found = ahead(make, range(9), workers=3)
    assert [next(found), next(found)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_an_iterator_runs_ahead_in_one_thread() -> None:
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(10):
            threads.add(threading.get_ident())
            yield number

    assert list(run_ahead(items())) == list(range(10))
    assert len(threads) == 1 and threading.get_ident() not in threads
